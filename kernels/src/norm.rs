//! Root-mean-square normalization.

use tch::{Device, Kind, Tensor};

use crate::cpu::norm::normalized;
use crate::cuda::{self, Argument, Function, Grid, Source};
use crate::cuda_rows::number_of;

/// Rows, normalized.
pub(crate) static NORMALIZE: Source = Source::new(
    "rmsnorm",
    include_str!("../cuda/rmsnorm.cu"),
    &["rmsnorm_f32", "rmsnorm_f16", "rmsnorm_bf16"],
);

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
    /// type, as transformers computes. In one pass, unless gradients are wanted or types differ.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.is_in_rows(x) {
            return normalized(x, self);
        }
        if let Some(function) = self.on_cuda(x) {
            return self.launch(function, x);
        }
        let wide = x.to_kind(Kind::Float);
        let mean_square = wide.square().mean_dim(-1, true, Kind::Float);
        let normal = wide * (mean_square + self.epsilon).rsqrt();
        self.weight * normal.to_kind(x.kind())
    }

    /// Whether rows of `x` can be gone through on a CPU, one after the other.
    pub(crate) fn is_in_rows(&self, x: &Tensor) -> bool {
        x.device() == Device::Cpu && matches!(x.kind(), Kind::Float | Kind::BFloat16) && self.is_plain(x)
    }

    /// Whether the weight has the type, the width and the place of `x`, and no gradients are wanted.
    fn is_plain(&self, x: &Tensor) -> bool {
        self.weight.kind() == x.kind()
            && x.size().last().is_some_and(|&width| self.weight.size() == [width])
            && self.weight.device() == x.device()
            && self.weight.is_contiguous()
            && !x.requires_grad()
            && !self.weight.requires_grad()
    }

    /// What normalizes `x` on CUDA, if it can.
    fn on_cuda(&self, x: &Tensor) -> Option<Function> {
        let fits = matches!(x.kind(), Kind::Float | Kind::Half | Kind::BFloat16) && self.is_plain(x);
        fits.then(|| cuda::entry(&NORMALIZE, number_of(x.kind()), x.device())).flatten()
    }

    fn launch(&self, function: Function, x: &Tensor) -> Tensor {
        let x = x.contiguous();
        let y = x.empty_like();
        let width = self.weight.size()[0];
        let rows = if width == 0 { 0 } else { x.numel() as i64 / width };
        let arguments = [
            Argument::Tensor(&x),
            Argument::Tensor(self.weight),
            Argument::Tensor(&y),
            Argument::Int(width as i32),
            Argument::Float(self.epsilon as f32),
        ];
        let threads = (width as u32).div_ceil(8).next_multiple_of(32).clamp(32, 512);
        let grid = Grid { blocks: [rows as u32, 1, 1], threads, shared_bytes: 0 };
        // SAFETY: these are rmsnorm's parameters, and the tensors have the shapes that it tells.
        unsafe { function.launch(grid, &arguments) }.expect("all of it is on the card, without gaps");
        y
    }
}
