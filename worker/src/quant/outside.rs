//! The matrices outside the blocks, the embedding and the output projection, in int8 where the options ask for it: one
//! piece for all methods, since rounding has nothing to do with the method and only the format differs.
//!
//! Rounded to nearest as llm-compressor does it ([`Rounding::Channel8`]), a scale a row; activations stay as they are.

use qpipe_nodes::kinds::{self, Storage};
use serde_json::{Value, json};
use tch::Tensor;

use super::error::QuantizeError;
use super::rtn::Rounding;
use crate::context::Facts;
use crate::model::Checkpoint;
use crate::model::decoder::{EMBEDDING, HEAD};
use crate::model::formats::compressed_tensors::{self, Matrix};
use crate::model::formats::qpipe_w4a8;

/// What becomes of a tensor outside the blocks.
#[derive(Debug)]
pub(super) enum Fate {
    /// It stays as it is.
    Kept,
    /// Nothing: another tensor serves.
    Dropped,
    /// These tensors take its place.
    Replaced(Vec<(String, Tensor)>),
}

/// What is asked of the matrices outside the blocks of a model, and how its format stores them.
#[derive(Debug)]
pub(super) struct Outside {
    options: kinds::Outside,
    is_tied: bool,
    format: Format,
}

/// Formats with a place for int8 matrices outside the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    CompressedTensors,
    QpipeW4A8,
    /// None.
    Other,
}

impl Outside {
    /// An error if the model has no place for what `options` ask for, told before any work is done.
    pub(super) fn check(options: kinds::Outside, checkpoint: &Checkpoint) -> Result<(), QuantizeError> {
        let model = &checkpoint.config;
        let is_int8 = |storage| storage == Storage::Int8;
        let shape = [model.vocab_size, model.hidden_size];
        if is_int8(options.embeddings) {
            checkpoint.expect_shape(EMBEDDING, &shape)?;
        }
        match (is_int8(options.lm_head), model.tie_word_embeddings) {
            (true, true) if !is_int8(options.embeddings) => Err(QuantizeError::TiedHead),
            (true, false) => Ok(checkpoint.expect_shape(&weight_of(HEAD), &shape)?),
            _ => Ok(()),
        }
    }

    /// `config` is the `quantization_config` of the method that quantizes the blocks.
    ///
    /// # Errors
    ///
    /// Options that its format has no place for.
    pub(super) fn new(
        options: kinds::Outside,
        checkpoint: &Checkpoint,
        config: &Value,
    ) -> Result<Self, QuantizeError> {
        let method = config["quant_method"].as_str().unwrap_or_default();
        let format = match method {
            compressed_tensors::METHOD => Format::CompressedTensors,
            qpipe_w4a8::METHOD => Format::QpipeW4A8,
            _ => Format::Other,
        };
        for (option, storage) in options.by_key() {
            if format == Format::Other && storage != Storage::Keep {
                return Err(QuantizeError::Outside { option, format: method.to_owned() });
            }
        }
        Ok(Self { options, is_tied: checkpoint.config.tie_word_embeddings, format })
    }

    /// What becomes of the tensor `name`, which `read` reads.
    ///
    /// # Errors
    ///
    /// Values that are not finite, and those of `read`.
    pub(super) fn fate<E: From<QuantizeError>>(
        &self,
        name: &str,
        read: impl FnOnce() -> Result<Tensor, E>,
    ) -> Result<Fate, E> {
        let Some(matrix) = self.matrices().into_iter().find(|matrix| name == weight_of(matrix.layer()))
        else {
            // Some checkpoints store a tied output projection a second time.
            let is_copy = self.is_tied && self.options.embeddings == Storage::Int8 && name == weight_of(HEAD);
            return Ok(if is_copy { Fate::Dropped } else { Fate::Kept });
        };
        let rounded = Rounding::Channel8.round(name, &read()?)?;
        let stored = match self.format {
            Format::QpipeW4A8 => qpipe_w4a8::store_outside(matrix.layer(), &rounded.codes, rounded.scale),
            _ => compressed_tensors::store_outside(matrix, &rounded.codes, rounded.scale)
                .map_err(QuantizeError::from)?,
        };
        Ok(Fate::Replaced(stored))
    }

    /// Adds what is asked for to the `quantization_config`.
    pub(super) fn describe(&self, config: &mut Value) {
        for matrix in self.matrices() {
            match self.format {
                Format::QpipeW4A8 => qpipe_w4a8::describe_outside(config, matrix.layer()),
                _ => compressed_tensors::describe_outside(config, matrix),
            }
        }
    }

    /// What the record and the report say of it; nothing where both matrices are kept.
    pub(super) fn facts(&self) -> Facts {
        let asked = self.options.by_key().into_iter().filter(|(_, storage)| *storage != Storage::Keep);
        asked.map(|(key, storage)| (key.to_owned(), json!(storage))).collect()
    }

    /// The matrices in int8.
    fn matrices(&self) -> Vec<Matrix> {
        let is_int8 = |storage| storage == Storage::Int8;
        match (is_int8(self.options.embeddings), is_int8(self.options.lm_head)) {
            (true, _) if self.is_tied => vec![Matrix::Tied],
            (true, true) => vec![Matrix::Head, Matrix::Embedding],
            (true, false) => vec![Matrix::Embedding],
            (false, true) => vec![Matrix::Head],
            (false, false) => Vec::new(),
        }
    }
}

fn weight_of(layer: &str) -> String {
    format!("{layer}.weight")
}
