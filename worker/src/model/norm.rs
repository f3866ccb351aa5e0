//! Root-mean-square normalisation (Zhang and Sennrich, 2019, arXiv 1910.07467).

use tch::{Kind, Tensor};

use super::checkpoint::Checkpoint;
use super::error::ModelError;
use super::linear::LoadOptions;

/// x / sqrt(mean(x²) + eps) in f32, rounded to the input's type, then times the weight: the order of
/// transformers' `LlamaRMSNorm`, which decides the last bits in bf16.
#[derive(Debug)]
pub struct RmsNorm {
    /// The scale, one entry a channel.
    pub weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Over the last dimension, of size `size`; the weight is the tensor `NAME.weight`.
    pub fn load(
        checkpoint: &Checkpoint,
        name: &str,
        size: i64,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let weight = options.weight(checkpoint, &format!("{name}.weight"), &[size])?;
        Ok(Self { weight, eps: checkpoint.config.norm_eps })
    }

    /// `x` [..., size], of the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let wide = x.to_kind(Kind::Float);
        let mean_square = wide.square().mean_dim(-1, true, Kind::Float);
        let normal = wide * (mean_square + self.eps).rsqrt();
        &self.weight * normal.to_kind(x.kind())
    }
}
