//! Root-mean-square normalisation (Zhang and Sennrich, 2019, arXiv 1910.07467).

use qpipe_kernels::{Input, Norm};
use tch::Tensor;

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
        self.norm().forward(x)
    }

    /// What it makes of `x` [..., size], for the linear layers that share it. It is worked out when one of them asks; others normalize where
    /// they quantize.
    pub fn input<'a>(&'a self, x: &'a Tensor) -> Input<'a> {
        Input::normalized(x, self.norm())
    }

    fn norm(&self) -> Norm<'_> {
        Norm { weight: &self.weight, epsilon: self.eps }
    }
}
