//! Root-mean-square normalisation (Zhang and Sennrich, 2019, arXiv 1910.07467).

use std::cell::OnceCell;

use qpipe_kernels::Norm;
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

    fn norm(&self) -> Norm<'_> {
        Norm { weight: &self.weight, epsilon: self.eps }
    }
}

/// What a norm makes of a tensor, for the linear layers that share it. It is worked out when one of them asks: others normalize
/// where they quantize.
#[derive(Debug)]
pub struct Normalized<'a> {
    x: &'a Tensor,
    norm: &'a RmsNorm,
    done: OnceCell<Tensor>,
}

impl<'a> Normalized<'a> {
    /// Of `x` [..., size].
    pub fn new(x: &'a Tensor, norm: &'a RmsNorm) -> Self {
        Self { x, norm, done: OnceCell::new() }
    }

    /// It, of the shape of `x`.
    pub fn tensor(&self) -> &Tensor {
        self.done.get_or_init(|| self.norm.forward(self.x))
    }

    /// Whether it is worked out already.
    pub fn is_done(&self) -> bool {
        self.done.get().is_some()
    }

    /// What it is made of.
    pub fn parts(&self) -> (&Tensor, Norm<'_>) {
        (self.x, self.norm.norm())
    }
}
