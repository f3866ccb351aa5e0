//! Root-mean-square normalization.

use tch::{Device, Kind, Tensor};

use crate::cpu::norm::normalized;

/// Root-mean-square normalization (Zhang and Sennrich, 2019, arXiv 1910.07467) of what a layer is given.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[K]`, in floating point.
    pub weight: &'a Tensor,
    /// Added to the mean square.
    pub epsilon: f64,
}

impl Norm<'_> {
    /// weight · x / √(mean(x²) + epsilon) of `x` [..., K]: the quotient in f32, rounded to `x`'s type, then the product in that
    /// type, as transformers computes. On a CPU in one pass, unless gradients are wanted or types differ.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.is_in_rows(x) {
            return normalized(x, self);
        }
        let wide = x.to_kind(Kind::Float);
        let mean_square = wide.square().mean_dim(-1, true, Kind::Float);
        let normal = wide * (mean_square + self.epsilon).rsqrt();
        self.weight * normal.to_kind(x.kind())
    }

    /// Whether rows of `x` can be gone through on a CPU, one after the other.
    pub(crate) fn is_in_rows(&self, x: &Tensor) -> bool {
        x.device() == Device::Cpu
            && matches!(x.kind(), Kind::Float | Kind::BFloat16)
            && self.weight.kind() == x.kind()
            && x.size().last().is_some_and(|&width| self.weight.size() == [width])
            && self.weight.device() == Device::Cpu
            && self.weight.is_contiguous()
            && !x.requires_grad()
            && !self.weight.requires_grad()
    }
}
