//! W8A8: int8 weights with a scale an output channel, activations quantized to int8 when they come, exact int32 sums.
//!
//! Activations are quantized (see [`crate::symmetric`] and [`crate::torchao`]) with a scale a token, or one found
//! beforehand; the sums are scaled in f32 by the activation's and the output channel's scale. On a CPU `fused` does all of
//! that in one pass over the weight, on CUDA `cuda` in two launches; `int_mm` is a plain product between operations of libtorch.

pub(crate) mod cuda;
pub(crate) mod fused;
pub(crate) mod int_mm;
pub(crate) mod launches;
mod matrix;
mod wide;

pub(crate) use launches::{NORMALIZE, QUANTIZE, Quantizer};
pub(crate) use matrix::{IntMatrix, fits_int32, int_mm};
pub(crate) use wide::{Entries, WIDE};
