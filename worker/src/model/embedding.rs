//! The embedding: rows of a matrix, looked up. Where `tie_word_embeddings` is set it is the output projection too, from
//! the same matrix in memory, however that is stored.

use qpipe_kernels::{Codes, PreparedLinear, QuantizedWeight};
use tch::{TchError, Tensor};

use super::checkpoint::Checkpoint;
use super::decoder::EMBEDDING_LAYER;
use super::error::ModelError;
use super::formats;
use super::linear::{Dense, Linear, LinearSpec, LoadOptions, tensor_bytes};

/// A matrix of a row a token, [vocabulary, hidden].
#[derive(Debug)]
pub enum Embedding {
    /// In floating point.
    Dense(Dense),
    /// In int8.
    Int8(Int8Embedding),
}

/// Codes and scales. A row is its codes times its scale.
#[derive(Debug)]
pub struct Int8Embedding {
    /// i8 [vocabulary, hidden].
    codes: Tensor,
    /// [vocabulary, 1] in the model's type.
    scale: Tensor,
    /// Multiplies by the tensors above; only where the embedding is tied.
    projection: Option<Box<dyn PreparedLinear>>,
}

impl Embedding {
    /// The embedding of `checkpoint`, as config.json says that it is stored.
    pub fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self, ModelError> {
        let config = &checkpoint.config;
        let spec = LinearSpec {
            name: EMBEDDING_LAYER,
            in_features: config.hidden_size,
            out_features: config.vocab_size,
            bias: false,
        };
        let Some(weight) = formats::read_embedding(checkpoint, &spec)? else {
            let shape = [config.vocab_size, config.hidden_size];
            let weight = options.weight(checkpoint, &format!("{EMBEDDING_LAYER}.weight"), &shape)?;
            return Ok(Self::Dense(Dense::new(weight, None, options.products.weights)));
        };
        let wrong = |problem: String| ModelError::Quantization { file: config.file.clone(), problem };
        if options.trainable {
            return Err(wrong(format!(
                "`{EMBEDDING_LAYER}` is quantized ({}) and cannot be trained",
                weight.scheme()
            )));
        }
        let Codes::Int8A16 { weight, scale } = weight.codes() else {
            return Err(wrong(format!(
                "`{EMBEDDING_LAYER}` is stored as {}, an embedding can be int8 with floating-point activations",
                weight.scheme()
            )));
        };
        let kind = options.kind(checkpoint)?;
        let codes = weight.f_to_device(options.device)?.f_contiguous()?;
        let scale = scale.f_to_device_(options.device, kind, false, false)?;
        let projection = if config.tie_word_embeddings {
            let shared = Codes::Int8A16 { weight: codes.shallow_clone(), scale: scale.shallow_clone() };
            let prepared = QuantizedWeight::new(shared, None, spec.out_features, spec.in_features)
                .and_then(|weight| qpipe_kernels::prepare(&weight, options.device, kind));
            Some(prepared.map_err(|error| wrong(format!("`{EMBEDDING_LAYER}`: {error}")))?)
        } else {
            None
        };
        Ok(Self::Int8(Int8Embedding { codes, scale, projection }))
    }

    /// The rows of `ids`, i64 [B, T]: [B, T, hidden] in the model's type.
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    pub fn look_up(&self, ids: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Dense(dense) => Tensor::f_embedding(&dense.weight, ids, -1, false, false),
            Self::Int8(Int8Embedding { codes, scale, .. }) => {
                let rows = |matrix: &Tensor| Tensor::f_embedding(matrix, ids, -1, false, false);
                rows(codes)?.f_to_kind(scale.kind())?.f_mul(&rows(scale)?)
            }
        }
    }

    /// `hidden` [..., hidden] times the matrix: [..., vocabulary]. Of a tied embedding only.
    pub fn project(&self, hidden: &Tensor) -> Tensor {
        match self {
            Self::Dense(dense) => dense.forward(hidden),
            Self::Int8(int8) => {
                let projection = int8.projection.as_ref();
                projection.expect("a tied embedding was prepared as a projection").forward(hidden)
            }
        }
    }

    /// Bytes of its tensors, which a tied projection shares.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Dense(dense) => dense.bytes(),
            Self::Int8(Int8Embedding { codes, scale, .. }) => tensor_bytes(codes) + tensor_bytes(scale),
        }
    }

    /// The floating-point matrix, if it is stored as one.
    pub fn dense(&self) -> Option<&Tensor> {
        match self {
            Self::Dense(dense) => Some(&dense.weight),
            Self::Int8(_) => None,
        }
    }
}
