//! W4A16: 4-bit weights, floating-point activations.
//!
//! Few rows are multiplied straight from the packed weight, by a kernel of our own on a CPU (`fused`) and on CUDA (`cuda_fused`), or by libtorch's
//! `_weight_int4pack_mm` there (`cuda`). That time grows with the rows, so for many a tile of output channels is unpacked from the same packed
//! weight and multiplied as a matrix. `tiles` does only the latter, for groups and devices that the others do not know.

pub(crate) mod cuda;
pub(crate) mod cuda_fused;
pub(crate) mod fused;
pub(crate) mod tiles;

pub use cuda_fused::interleaved;

use tch::{TchError, Tensor};

/// Group sizes that libtorch's operations know.
const GROUPS: [i64; 4] = [32, 64, 128, 256];

/// Weights in a tile: it stays in the second-level cache while it is unpacked and multiplied.
const TILE_WEIGHTS: i64 = 1 << 18;

/// Scales [N, K/g] in the layout of libtorch's operations, [K/g, N, 2]: scale and offset. They compute
/// (nibble - 8) · scale + offset, so the offset of a zero point z, i8 [N, K/g], is -z · scale.
fn scales_and_offsets(scale: &Tensor, zero: Option<&Tensor>) -> Result<Tensor, TchError> {
    let scale = scale.f_tr()?;
    let offset = match zero {
        Some(zero) => zero.f_tr()?.f_neg()?.f_mul(&scale)?,
        None => scale.f_zeros_like()?,
    };
    Tensor::f_stack(&[&scale, &offset], 2)
}
