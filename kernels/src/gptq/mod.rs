//! The inner loop of GPTQ (Frantar et al., 2022, arXiv 2210.17323): the columns of a block, one after the other.
//!
//! ```text
//! for i in block:  code = round(w[i]);  e = (w[i] - value(code)) / U[i, i];  w[j] -= e · U[i, j] for j > i
//! ```
//!
//! Rows are independent: sixteen of them share the lanes of a vector, and rayon spreads the strips over threads. Each
//! product is rounded before it is subtracted, as in the references, which have no fused multiply-add here; so codes
//! and errors are theirs to the bit, whatever the instruction set and the number of threads.

mod cuda;
mod strip;

use rayon::prelude::*;
use tch::{Device, Kind, TchError, Tensor};

use strip::{LANES, Strip, Task};

use crate::cpu::Isa;
use crate::cpu::threads::on_threads;
use crate::cpu::view::{elements, elements_mut};
use crate::weight::KernelError;

pub(crate) use cuda::BLOCK;

/// When the zero point is added: the two references differ, and so do their codes where a half is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPoint {
    /// round(clamp(w / scale + zero)): compressed-tensors.
    BeforeRounding,
    /// clamp(round(w / scale) + zero): GPTQModel.
    AfterRounding,
}

/// What codes there are and what they stand for: value = (code - zero) · scale.
#[derive(Debug)]
pub struct Grid<'a> {
    /// f32 [N, G].
    pub scale: &'a Tensor,
    /// f32 [N, G]; `None`: 0 everywhere.
    pub zero: Option<&'a Tensor>,
    /// See [`ZeroPoint`].
    pub zero_point: ZeroPoint,
    /// The lowest code.
    pub lowest: i32,
    /// The highest code, at most 255 above the lowest.
    pub highest: i32,
    /// The type that values are rounded to: float32, bfloat16 or float16.
    pub kind: Kind,
}

/// A block of B columns, rounded.
#[derive(Debug)]
pub struct RoundedBlock {
    /// u8 [N, B]: codes counted from the lowest.
    pub codes: Tensor,
    /// f32 [N, B]: what they stand for.
    pub values: Tensor,
    /// f32 [N, B]: errors over the diagonal of U, for the columns behind the block.
    pub errors: Tensor,
}

/// Rounds `block`, f32 [N, B], column by column. `factor`, f32 [B, B], is the block's part of the upper triangle U with
/// UᵀU = H⁻¹; `group_of` gives the group of each column, below G. Results are on the device of `block`; blocks of up to 128
/// columns on CUDA are rounded there, all others on the CPU, with the same bits.
///
/// # Errors
///
/// Only libtorch's, and the driver's in its place.
///
/// # Panics
///
/// If shapes or types are not as said here.
pub fn round_block(
    block: &Tensor,
    factor: &Tensor,
    grid: &Grid<'_>,
    group_of: &[usize],
) -> Result<RoundedBlock, TchError> {
    let (rows, columns) = block.size2()?;
    let groups = grid.scale.size2()?.1 as usize;
    assert_eq!(factor.size(), [columns, columns]);
    assert_eq!(grid.scale.size()[0], rows);
    assert!(grid.zero.is_none_or(|zero| zero.size() == grid.scale.size()), "a zero point a scale");
    assert_eq!(group_of.len(), columns as usize);
    assert!(group_of.iter().all(|&group| group < groups), "a group is beyond {groups}");
    assert!((0..=255).contains(&(grid.highest - grid.lowest)));

    let device = block.device();
    if cuda::serves(device, columns) {
        return cuda::round_block(block, factor, grid, group_of).map_err(|error| match error {
            KernelError::Torch(error) => error,
            // A launch that fails leaves the device unusable, which is all that a caller can say too.
            other => TchError::Torch(other.to_string()),
        });
    }
    let (block, factor, scale) = (floats(block)?, floats(factor)?, floats(grid.scale)?);
    let zero = grid.zero.map(floats).transpose()?;
    let empty = |kind| Tensor::f_empty([rows, columns], (kind, Device::Cpu));
    let (mut codes, mut values, mut errors) = (empty(Kind::Uint8)?, empty(Kind::Float)?, empty(Kind::Float)?);
    let task = Task {
        factor: elements(&factor),
        scale: elements(&scale),
        zero: zero.as_ref().map(elements),
        groups,
        group_of,
        zero_point: grid.zero_point,
        lowest: grid.lowest as f32,
        highest: grid.highest as f32,
        kind: grid.kind,
        isa: Isa::here(),
    };
    let stride = LANES * columns as usize;
    let results = elements_mut::<u8>(&mut codes)
        .par_chunks_mut(stride)
        .zip(elements_mut::<f32>(&mut values).par_chunks_mut(stride))
        .zip(elements_mut::<f32>(&mut errors).par_chunks_mut(stride));
    let strips = elements::<f32>(&block).par_chunks(stride).zip(results).enumerate();
    on_threads(tch::get_num_threads(), || {
        strips.for_each(|(number, (weights, ((codes, values), errors)))| {
            task.round(Strip { first_row: number * LANES, weights, codes, values, errors });
        });
    });
    Ok(RoundedBlock {
        codes: codes.f_to_device(device)?,
        values: values.f_to_device(device)?,
        errors: errors.f_to_device(device)?,
    })
}

/// `tensor` as f32 on the CPU, without gaps.
fn floats(tensor: &Tensor) -> Result<Tensor, TchError> {
    tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
