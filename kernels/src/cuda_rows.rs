//! Activations as the kernels for CUDA with 4-bit weights take them.

use tch::{Kind, TchError, Tensor};

/// Kernels load so many bytes at once.
const ALIGNMENT: usize = 16;

/// The number of a type in the lists of entries that have f32, f16 and bf16.
pub(crate) fn number_of(kind: Kind) -> usize {
    match kind {
        Kind::Float => 0,
        Kind::Half => 1,
        Kind::BFloat16 => 2,
        _ => unreachable!("supports() admits these types only"),
    }
}

/// `x` without gaps, from an aligned address on: a copy where it is a part of another tensor that begins elsewhere.
pub(crate) fn aligned(x: &Tensor) -> Result<Tensor, TchError> {
    let x = x.f_contiguous()?;
    if (x.data_ptr() as usize).is_multiple_of(ALIGNMENT) { Ok(x) } else { Ok(x.copy()) }
}
