//! Products with a weight in float32, brought into strips as it goes by, and multiplied by [`outer_wide`].
//!
//! libtorch's own come from MKL, which takes longer on AMD's processors: see docs/decisions/0010-whose-float32.md.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use super::float_strips::{self, Biased, Room, Weights};
use super::fours::Strip;
use super::isa::Isa;
use super::outer_wide;
use super::view::{Columns, elements};
use crate::input::Input;

/// Whether float32 is multiplied here.
pub(crate) fn is_best(isa: Isa) -> bool {
    outer_wide::is_best(isa)
}

/// y = x Wᵀ + b: `input` [..., K], `weight` [N, K] and `bias` `[N]` in f32 on a CPU, `weight` without gaps, K not 0.
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
    let weights = Ready::new(elements::<f32>(weight), (out_features as usize, in_features as usize));
    let sink = Biased { y: Columns::<f32>::new(&mut y), bias: bias.as_ref().map(elements) };
    // SAFETY: the caller promises it.
    unsafe { float_strips::multiply(input.wide_rows(), &weights, &sink) };
    Ok(y)
}

/// A weight [N, K] in f32 that lies in strips.
#[derive(Debug)]
pub(crate) struct InStrips {
    strips: Vec<Strip>,
    shape: (usize, usize),
}

impl InStrips {
    /// Of `weight` [N, K] on a CPU, without gaps.
    ///
    /// # Safety
    ///
    /// The processor has the unit, see [`is_best`].
    pub(crate) unsafe fn new(weight: &Tensor) -> Result<Self, TchError> {
        let (out_features, in_features) = weight.size2()?;
        let shape = (out_features as usize, in_features as usize);
        // SAFETY: the caller promises it.
        let strips =
            unsafe { float_strips::all_of::<outer_wide::Rows<f32>>(&Ready::new(elements(weight), shape)) };
        Ok(Self { strips, shape })
    }

    /// N and K.
    pub(crate) fn size(&self) -> (i64, i64) {
        (self.shape.0 as i64, self.shape.1 as i64)
    }

    /// Bytes of the strips.
    pub(crate) fn bytes(&self) -> u64 {
        self.strips.iter().map(|strip| size_of_val(strip.all()) as u64).sum()
    }

    /// [`linear`] by it.
    ///
    /// # Safety
    ///
    /// The processor has the unit.
    pub(crate) unsafe fn linear(&self, input: &Input<'_>, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
        let mut y = Tensor::f_empty(input.output_size(self.size()), (Kind::Float, Device::Cpu))?;
        let bias = bias.map(Tensor::f_contiguous).transpose()?;
        assert!(bias.as_ref().is_none_or(|bias| bias.size() == [self.size().0]), "a number a channel");
        let sink = Biased { y: Columns::<f32>::new(&mut y), bias: bias.as_ref().map(elements) };
        // SAFETY: the caller promises it.
        unsafe { float_strips::multiply_kept(input.wide_rows(), &self.strips, self.shape, &sink) };
        Ok(y)
    }
}

/// A weight [N, K] that nothing has to be unpacked of.
pub(crate) struct Ready<'a, T> {
    weights: &'a [T],
    shape: (usize, usize),
}

impl<'a, T> Ready<'a, T> {
    /// Of this shape (N, K).
    pub(crate) fn new(weights: &'a [T], shape: (usize, usize)) -> Self {
        assert_eq!(weights.len(), shape.0 * shape.1);
        Self { weights, shape }
    }
}

impl<T: Copy + Default + Sync> Weights<T> for Ready<'_, T> {
    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn channels<'a>(&'a self, range: Range<usize>, room: &'a mut Room<T>) -> &'a [T] {
        let (_, in_features) = self.shape;
        let range = range.start * in_features..range.end * in_features;
        self.weights.get(range.clone()).unwrap_or_else(|| {
            room.weights.clear();
            room.weights.extend_from_slice(&self.weights[range.start..]);
            room.weights.resize(range.len(), T::default());
            &room.weights
        })
    }
}
