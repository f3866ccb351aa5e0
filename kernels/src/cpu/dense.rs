//! Products with a weight in float32, brought into strips as it goes by, and multiplied by [`outer_wide`].
//!
//! libtorch's own come from MKL, which on AMD's processors takes 5 to 20 % longer on one core, and up to twice as long on two with few
//! rows (docs/kernels.md has figures).

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use super::float_strips::{self, Biased, Unpacked, Weights};
use super::isa::Isa;
use super::outer_wide;
use super::view::{Columns, elements};
use crate::input::Input;

/// A single row has nothing to share a strip with.
const FEW_ROWS: i64 = 1;

/// Whether `rows` rows are multiplied here.
pub(crate) fn is_best(rows: i64, isa: Isa) -> bool {
    rows > FEW_ROWS && outer_wide::is_best(isa)
}

/// y = x Wᵀ + b: `input` [..., K], `weight` [N, K] and `bias` `[N]` in f32 on a CPU, `weight` without gaps.
///
/// # Safety
///
/// The processor has the unit, see [`is_best`].
pub(crate) unsafe fn linear(
    input: &Input<'_>,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    let (out_features, in_features) = weight.size2()?;
    let mut y = Tensor::f_empty(input.output_size((out_features, in_features)), (Kind::Float, Device::Cpu))?;
    let bias = bias.map(Tensor::f_contiguous).transpose()?;
    let weights = Ready::new(elements::<f32>(weight), in_features as usize);
    let sink = Biased { y: Columns::<f32>::new(&mut y), bias: bias.as_ref().map(elements) };
    // SAFETY: the caller promises it.
    unsafe { float_strips::multiply(input.float_rows(), &weights, &sink) };
    Ok(y)
}

/// A weight [N, K] that is in its type already.
pub(crate) struct Ready<'a, T> {
    weights: &'a [T],
    in_features: usize,
}

impl<'a, T> Ready<'a, T> {
    /// Of so many input channels.
    pub(crate) fn new(weights: &'a [T], in_features: usize) -> Self {
        Self { weights, in_features }
    }
}

impl<T: Copy + Default + Sync> Weights<T> for Ready<'_, T> {
    fn shape(&self) -> (usize, usize) {
        (self.weights.len() / self.in_features.max(1), self.in_features)
    }

    fn channels<'a>(&'a self, range: Range<usize>, unpacked: &'a mut Unpacked<T>) -> &'a [T] {
        let range = range.start * self.in_features..range.end * self.in_features;
        self.weights.get(range.clone()).unwrap_or_else(|| {
            unpacked.weights.clear();
            unpacked.weights.extend_from_slice(&self.weights[range.start..]);
            unpacked.weights.resize(range.len(), T::default());
            &unpacked.weights
        })
    }
}
