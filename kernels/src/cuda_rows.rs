//! Activations as the kernels for CUDA with 4-bit weights take them.

use tch::{Kind, TchError, Tensor};

use crate::weight::KernelError;

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

/// `x` [M, K] times the transposed weight of `shape` (N, K), plus a bias `[N]` of its type, by libtorch: `fill` unpacks into a tile
/// [count, K] of the type of `x` the output channels from some first one on.
pub(crate) fn multiply_tiles(
    x: &Tensor,
    (out_features, in_features): (i64, i64),
    bias: Option<&Tensor>,
    tile_weights: i64,
    fill: impl Fn(&Tensor, i64) -> Result<(), KernelError>,
) -> Result<Tensor, KernelError> {
    let bias = bias.map(|bias| bias.f_to_kind(x.kind())).transpose()?;
    let step = (tile_weights / in_features).clamp(1, out_features);
    let tile = Tensor::f_empty([step, in_features], (x.kind(), x.device()))?;
    let mut parts = Vec::new();
    for first in (0..out_features).step_by(step as usize) {
        let count = step.min(out_features - first);
        let tile = tile.f_narrow(0, 0, count)?;
        fill(&tile, first)?;
        let bias = bias.as_ref().map(|bias| bias.f_narrow(0, first, count)).transpose()?;
        parts.push(x.f_linear(&tile, bias.as_ref())?);
    }
    joined(parts)
}

/// Outputs [M, ...] of some output channels after the other, side by side; without a copy where there is one part.
fn joined(mut parts: Vec<Tensor>) -> Result<Tensor, KernelError> {
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        last => {
            parts.extend(last);
            Ok(Tensor::f_cat(&parts, 1)?)
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_tensor_is_copied_where_it_begins_between_aligned_addresses() {
        let whole = Tensor::arange(64, (Kind::Float, tch::Device::Cpu));
        let part = whole.narrow(0, 3, 8);
        let copy = aligned(&part).unwrap();
        assert!((copy.data_ptr() as usize).is_multiple_of(ALIGNMENT) && copy.equal(&part));
        let part = whole.narrow(0, 4, 8);
        assert_eq!(aligned(&part).unwrap().data_ptr(), part.data_ptr());
    }

    #[test]
    fn parts_are_joined_in_their_order() {
        let part =
            |first: i64| Tensor::arange_start(first, first + 2, (Kind::Float, tch::Device::Cpu)).view([1, 2]);
        assert!(joined(vec![part(0), part(2)]).unwrap().equal(&Tensor::cat(&[part(0), part(2)], 1)));
        assert!(joined(vec![part(5)]).unwrap().equal(&part(5)));
    }
}
