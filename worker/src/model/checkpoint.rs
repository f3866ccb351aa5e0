//! A checkpoint folder: config.json, and the weights that it says are there.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::config::Config;
use super::decoder::{EMBEDDING, FINAL_NORM, HEAD};
use super::error::ModelError;
use super::tensor_files::TensorFiles;

/// The single file of weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Where each tensor of a sharded checkpoint is.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// A checkpoint folder: its config.json and its tensors by name.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder.
    pub folder: PathBuf,
    /// config.json.
    pub config: Config,
    tensors: TensorFiles,
}

impl Checkpoint {
    /// Opens `folder`: reads config.json and the headers of all weight files, and no tensor.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let config = Config::read(folder)?;
        let single = folder.join(WEIGHTS_FILE);
        let index = folder.join(INDEX_FILE);
        let tensors = if single.is_file() {
            TensorFiles::open(&single)?
        } else if index.is_file() {
            TensorFiles::open_index(&index)?
        } else {
            return Err(ModelError::MissingFile {
                folder: folder.to_owned(),
                file: format!("{WEIGHTS_FILE}` or `{INDEX_FILE}"),
            });
        };
        let mut this = Self { folder: folder.to_owned(), config, tensors };
        if this.config.tie_word_embeddings && this.has_own_head()? {
            this.config.tie_word_embeddings = false;
        }
        Ok(this)
    }

    /// Whether there is an output projection with other values than the embedding's: transformers 5 then ties
    /// the two no longer, whatever config.json says.
    fn has_own_head(&self) -> Result<bool, ModelError> {
        let head = format!("{HEAD}.weight");
        if !(self.has(&head) && self.has(EMBEDDING)) {
            return Ok(false);
        }
        let (head, embedding) = (self.tensor(&head)?, self.tensor(EMBEDDING)?);
        Ok(head.kind() != embedding.kind() || head.size() != embedding.size() || !head.equal(&embedding))
    }

    /// The same model with other tensors, of which `config` is the `quantization_config`.
    pub fn quantized_as(&self, config: Value, tensors: TensorFiles) -> Self {
        let config = Config { quantization: Some(config), ..self.config.clone() };
        Self { folder: self.folder.clone(), config, tensors }
    }

    /// config.json's `quantization_config`.
    pub fn quantization_config(&self) -> Option<&Value> {
        self.config.quantization.as_ref()
    }

    /// The tensors.
    pub fn tensors(&self) -> &TensorFiles {
        &self.tensors
    }

    /// See [`TensorFiles::tensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        self.tensors.tensor(name)
    }

    /// Whether there is a tensor called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.has(name)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.names()
    }

    /// The first tensor of a decoder block that config.json does not count.
    pub fn beyond_layers(&self) -> Option<&str> {
        self.names().find(|name| {
            let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
            layer.and_then(|layer| layer.parse().ok()).is_some_and(|layer: usize| layer >= self.config.layers)
        })
    }

    /// The shape of a tensor, without reading it.
    pub fn shape(&self, name: &str) -> Result<Vec<i64>, ModelError> {
        self.tensors.shape(name)
    }

    /// The element type of a tensor, without reading it.
    pub fn kind(&self, name: &str) -> Result<Kind, ModelError> {
        self.tensors.kind(name)
    }

    /// The floating-point type that its weights are in: the embedding's, or, where that is quantized, the norms'.
    pub fn float_kind(&self) -> Result<Kind, ModelError> {
        if self.has(EMBEDDING) {
            let kind = self.kind(EMBEDDING)?;
            if is_floating(kind) {
                return Ok(kind);
            }
        }
        self.kind(FINAL_NORM)
    }

    /// The file that holds a tensor, for messages.
    pub fn file_of(&self, name: &str) -> &Path {
        self.tensors.file_of(name)
    }

    /// The floating-point tensor `name`, on `device`, as `kind`, checked to have `shape`.
    pub fn float_tensor(
        &self,
        name: &str,
        shape: &[i64],
        kind: Kind,
        device: Device,
    ) -> Result<Tensor, ModelError> {
        self.expect_shape(name, shape)?;
        let found = self.kind(name)?;
        if !is_floating(found) {
            return Err(ModelError::TensorType {
                file: self.file_of(name).to_owned(),
                tensor: name.to_owned(),
                expected: "F32, BF16, F16 or F64".to_owned(),
                found: format!("{found:?}"),
            });
        }
        Ok(self.tensor(name)?.f_to_device_(device, kind, false, false)?)
    }

    /// An error unless the tensor `name` has `shape`.
    pub fn expect_shape(&self, name: &str, shape: &[i64]) -> Result<(), ModelError> {
        let found = self.shape(name)?;
        if found == shape {
            return Ok(());
        }
        Err(ModelError::Shape {
            file: self.file_of(name).to_owned(),
            tensor: name.to_owned(),
            expected: shape.to_vec(),
            found,
        })
    }
}

/// Whether weights of type `kind` are floating-point numbers that are computed with.
pub fn is_floating(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half | Kind::Double)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "checkpoint_tests.rs"]
mod tests;
