//! A block of GPTQ's columns on CUDA, in one launch.

use tch::{Device, Kind, Tensor};

use super::{Grid, RoundedBlock, ZeroPoint};
use crate::cuda::{self, Argument, Function, Source};
use crate::weight::KernelError;

pub(crate) static BLOCK: Source =
    Source::new("gptq_block", include_str!("../../cuda/gptq_block.cu"), &["gptq_block"]);

/// Columns that the kernel has room for.
const MOST_COLUMNS: i64 = 128;
/// Rows and threads of a block.
const ROWS: u64 = 8;
const THREADS: u32 = 256;

/// Whether it can round a block of so many columns on `device`.
pub(super) fn serves(device: Device, columns: i64) -> bool {
    device.is_cuda() && columns <= MOST_COLUMNS && cuda::works(device, &[&BLOCK])
}

/// [`super::round_block`] where [`serves`] says yes: the same codes, values and errors to the bit.
pub(super) fn round_block(
    block: &Tensor,
    factor: &Tensor,
    grid: &Grid<'_>,
    group_of: &[usize],
) -> Result<RoundedBlock, KernelError> {
    let ((rows, columns), groups, device) = (block.size2()?, grid.scale.size2()?.1, block.device());
    let floats = |tensor: &Tensor| tensor.f_to_device_(device, Kind::Float, false, false)?.f_contiguous();
    let (block, factor, scale) = (floats(block)?, floats(factor)?, floats(grid.scale)?);
    let zero = grid.zero.map(floats).transpose()?;
    let group_of: Vec<i32> = group_of.iter().map(|&group| group as i32).collect();
    let group_of = Tensor::f_from_slice(&group_of)?.f_to_device(device)?;
    let empty = |kind| Tensor::f_empty([rows, columns], (kind, device));
    let rounded =
        RoundedBlock { codes: empty(Kind::Uint8)?, values: empty(Kind::Float)?, errors: empty(Kind::Float)? };
    let kind = match grid.kind {
        Kind::BFloat16 => 1,
        Kind::Half => 2,
        _ => 0,
    };
    let arguments = [
        Argument::Tensor(&rounded.codes),
        Argument::Tensor(&rounded.values),
        Argument::Tensor(&rounded.errors),
        Argument::Tensor(&block),
        Argument::Tensor(&factor),
        Argument::Tensor(&scale),
        Argument::from(zero.as_ref()),
        Argument::Tensor(&group_of),
        Argument::Int(rows as i32),
        Argument::Int(columns as i32),
        Argument::Int(groups as i32),
        Argument::Int(i32::from(grid.zero_point == ZeroPoint::AfterRounding)),
        Argument::Float(grid.lowest as f32),
        Argument::Float(grid.highest as f32),
        Argument::Int(kind),
    ];
    let blocks = [rows.cast_unsigned().div_ceil(ROWS) as u32, 1, 1];
    let launched = Function::of(&BLOCK, BLOCK.functions[0], device, 0)?;
    // SAFETY: these are gptq_block's parameters, with the shapes that round_block has checked.
    unsafe { launched.launch(cuda::Grid { blocks, threads: THREADS, shared_bytes: 0 }, &arguments)? };
    Ok(rounded)
}
