//! W4A8: 4-bit weights that become int8 on the way and are multiplied with int8 activations in exact int32: in registers or in the cache by
//! kernels of our own (`fused`, `cuda`), a tile at a time before a plain int8 product for groups that these do not know. The weight in memory is
//! the packed one and no other.

pub(crate) mod cuda;
pub(crate) mod fused;
pub(crate) mod grouped;
pub(crate) mod progressive;
mod tile;

pub use cuda::{by_group, progressive_groups};

use tch::Device;

use crate::int8::fits_int32;
use crate::kernel::Layer;

/// On CUDA, `_int_mm` wants multiples of this.
const CUDA_ALIGNMENT: i64 = 8;

/// Weights unpacked at once: on a CPU they stay in the second-level cache.
fn tile_weights(device: Device) -> i64 {
    if device.is_cuda() { 1 << 25 } else { 1 << 18 }
}

/// Whether a product of `inner` channels at a time works: codes come in pairs, CUDA wants more.
fn serves(layer: &Layer, group: i64, inner: i64) -> bool {
    let aligned = match layer.device {
        Device::Cpu => true,
        Device::Cuda(_) => inner % CUDA_ALIGNMENT == 0 && layer.out_features % CUDA_ALIGNMENT == 0,
        _ => false,
    };
    aligned && group % 2 == 0 && fits_int32(layer)
}
