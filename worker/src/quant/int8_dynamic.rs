//! W8A8 without calibration, in the convention of llm-compressor ([`Rounding::Channel8`]) or of torchao 0.18
//! (`Int8DynamicActivationInt8WeightConfig`, version 2): the same scales, other codes.
//!
//! Both are stored as compressed-tensors. How activations are rounded is nothing that its format says: that a
//! checkpoint is torchao's stands in config.json beside it (docs/formats/compressed-tensors.md).

use qpipe_kernels::torchao;
use qpipe_nodes::kinds::{self, Convention};
use serde_json::{Value, json};
use tch::{TchError, Tensor};

use super::error::QuantizeError;
use super::layers::Layer;
use super::method::{Block, Method, Quantized};
use super::rtn::{Rounded, Rounding};
use crate::context::Facts;
use crate::model::decoder::HEAD;
use crate::model::formats::compressed_tensors::{self, StoredScheme};

/// The method `int8-dynamic`: all linear layers of the blocks.
#[derive(Debug)]
pub(super) struct Int8Dynamic {
    convention: Convention,
}

impl Int8Dynamic {
    pub(super) fn new(options: &kinds::Int8Dynamic) -> Self {
        Self { convention: options.convention }
    }

    fn stored(&self) -> StoredScheme {
        match self.convention {
            Convention::Llmc => Rounding::Channel8.stored(),
            Convention::Torchao => StoredScheme::W8A8Torchao,
        }
    }
}

impl Method for Int8Dynamic {
    fn check(&self, layer: &Layer) -> Result<(), QuantizeError> {
        Rounding::Channel8.check(layer)
    }

    fn quantize(&mut self, block: Block) -> Result<Quantized, QuantizeError> {
        let mut quantized = Quantized::default();
        for linear in block.linears {
            let rounded = match self.convention {
                Convention::Llmc => Rounding::Channel8.round(&linear.layer.weight, &linear.weight)?,
                Convention::Torchao => round_as_torchao(&linear.weight)?,
            };
            let (stored, name) = (self.stored(), &linear.layer.name);
            quantized.tensors.extend(compressed_tensors::store(name, stored, &rounded.codes, rounded.scale)?);
        }
        Ok(quantized)
    }

    fn config(&self) -> Value {
        compressed_tensors::describe(self.stored(), &[HEAD])
    }

    fn facts(&self) -> Facts {
        let (rounding, scale, activations) = match self.convention {
            Convention::Llmc => (
                "nearest, half to even, of a quotient in the weights' type",
                Rounding::Channel8.scale_rule(),
                "dynamic: largest magnitude of the token / 127.5, codes of a quotient in the activations' type",
            ),
            Convention::Torchao => (
                "nearest, half to even, of a product with the reciprocal of the scale in f32",
                "largest magnitude of the channel / 127.5, in the weights' type, at least 2^-23",
                "dynamic: largest magnitude of the token / 127.5, codes of a product with its reciprocal in f32 \
                 (readers other than qpipe: a quotient in the activations' type)",
            ),
        };
        Facts::from([
            ("scheme".to_owned(), json!("W8A8")),
            ("convention".to_owned(), json!(self.convention)),
            ("rounding".to_owned(), json!(rounding)),
            ("scale".to_owned(), json!(scale)),
            ("activations".to_owned(), json!(activations)),
        ])
    }
}

/// Rounds `weight` [N, K], floating point: the codes and scales of torchao's `Int8Tensor.from_hp(weight, PerRow())`. It
/// keeps scales in f32; they are numbers of the weight's type, in which compressed-tensors wants them.
///
/// # Errors
///
/// Only libtorch's.
pub fn round_as_torchao(weight: &Tensor) -> Result<Rounded, TchError> {
    let scale = torchao::scales(weight)?;
    let codes = torchao::codes(weight, &scale)?;
    Ok(Rounded { codes, scale: scale.f_to_kind(weight.kind())? })
}
