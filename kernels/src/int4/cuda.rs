//! `_weight_int4pack_mm` on CUDA (tinygemm) for few rows, tiles unpacked from the same packed weight for many.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, TchError, Tensor};

use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::packing::{self, OFFSET};
use crate::weight::{Codes, KernelError, QuantizedWeight};

use super::{GROUPS, scales_and_offsets};

/// Up to this many rows libtorch's operation is used, above it tiles.
const FEW_ROWS: i64 = 64;

/// Output channels that share a block of the packed weight.
const CHANNELS: i64 = 8;
/// Input channels in one of the tensor cores' tiles.
const INNER: i64 = 16;
/// Such tiles that are packed together, the most first.
const INNER_TILES: [i64; 3] = [8, 4, 2];
/// Weights unpacked at once, as bf16: 64 MiB.
const TILE_WEIGHTS: i64 = 1 << 25;

/// bf16 on compute capability 8.0 and later. Scales are bf16 too.
#[derive(Debug)]
pub(crate) struct PackedCuda;

impl Kernel for PackedCuda {
    fn supports(&self, layer: &Layer) -> bool {
        layer.kind == Kind::BFloat16
            && layer.group().is_some_and(|group| GROUPS.contains(&group))
            && layer.out_features % CHANNELS == 0
            && inner_tiles(layer.in_features).is_some()
            && works(layer.device)
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::Int4 { packed, scale, group } = weight.codes() else {
            unreachable!("the table has it for W4A16 only");
        };
        let bytes = packing::bytes(&packed.f_to_device(layer.device)?)?;
        let bytes = bytes.f_narrow(1, 0, weight.in_features() / 2)?;
        let scale = scale.f_to_device_(layer.device, layer.kind, false, false)?;
        Ok(Box::new(PreparedPackedCuda {
            packed: convert(&bytes, weight.in_features())?,
            scales_and_offsets: scales_and_offsets(&scale, None)?,
            bias: weight
                .bias()
                .map(|bias| bias.f_to_device_(layer.device, layer.kind, false, false))
                .transpose()?,
            group: *group,
        }))
    }
}

/// How many tiles of [`INNER`] input channels are packed together, if K allows any.
fn inner_tiles(in_features: i64) -> Option<i64> {
    INNER_TILES.into_iter().find(|tiles| in_features % (tiles * INNER) == 0)
}

/// libtorch's packing, i32 [N/8, K/(16 t), 32, t/2] for t inner tiles, of bytes, u8 [N, K/2], with the first
/// of two codes in the lower half.
fn convert(bytes: &Tensor, in_features: i64) -> Result<Tensor, TchError> {
    let tiles = inner_tiles(in_features).expect("supports() asks for it");
    // The operation wants the first of two codes in the upper half.
    let swapped = bytes
        .f_bitwise_left_shift_tensor_scalar(4)?
        .f_bitwise_or_tensor(&bytes.f_bitwise_right_shift_tensor_scalar(4)?)?;
    swapped.f_contiguous()?.f_internal_convert_weight_to_int4pack(tiles)
}

/// The codes, i8 [8 B, K], of B blocks of `packed`: the inverse of libtorch's
/// `matrix_to_m16n8k16_Bint4_layout` (ATen/native/cuda/int4mm.cu). Lane t of 32 holds output channel t/4; a
/// word holds two inner tiles, of each the input channels 2 (t%4) + {0, 1, 8, 9}, the odd ones in the upper
/// 16 bits.
fn unpack(packed: &Tensor) -> Result<Tensor, TchError> {
    let (blocks, outer, _, words) = packed.size4()?;
    // Nibble i of a word in the order: inner tile, upper or lower eight channels, even or odd channel.
    let shifts = Tensor::from_slice(&[0_i32, 16, 4, 20, 8, 24, 12, 28]).f_to_device(packed.device())?;
    let nibbles = packed.f_unsqueeze(-1)?.f_bitwise_right_shift(&shifts)?.f_bitwise_and(15)?;
    let codes = nibbles.f_to_kind(Kind::Int8)?.f_sub_scalar(OFFSET)?;
    // block, outer k, channel, quad of lanes, word, tile, eights, parity
    let codes = codes.f_view([blocks, outer, CHANNELS, 4, words, 2, 2, 2].as_slice())?;
    codes.f_permute([0, 2, 1, 4, 5, 6, 3, 7])?.f_reshape([blocks * CHANNELS, outer * words * 2 * INNER])
}

/// Whether this device has the operations and packs in the layout that [`unpack`] knows: tried once on each.
fn works(device: Device) -> bool {
    static WORKS: Mutex<BTreeMap<usize, bool>> = Mutex::new(BTreeMap::new());
    let Device::Cuda(index) = device else { return false };
    *WORKS.lock().unwrap_or_else(PoisonError::into_inner).entry(index).or_insert_with(|| {
        let (rows, columns) = (16_i64, 256_i64);
        let bytes: Vec<u8> = (0..rows * columns / 2).map(|i| (i * 89 + i / 128 * 7 + i / 16) as u8).collect();
        let try_out = || -> Result<bool, TchError> {
            let bytes = Tensor::from_slice(&bytes).f_view([rows, columns / 2])?.f_to_device(device)?;
            let expected = packing::unpack(&bytes.f_view_dtype(Kind::Int)?, columns)?;
            let packed = convert(&bytes, columns)?;
            let scales = Tensor::f_ones([rows, columns / 128], (Kind::BFloat16, device))?;
            let x = Tensor::f_ones([1, columns], (Kind::BFloat16, device))?;
            let _ = x.f_internal_weight_int4pack_mm(&packed, 128, &scales_and_offsets(&scales, None)?)?;
            Ok(unpack(&packed)?.equal(&expected))
        };
        try_out().unwrap_or(false)
    })
}

#[derive(Debug)]
struct PreparedPackedCuda {
    /// i32 [N/8, K/(16 t), 32, t/2].
    packed: Tensor,
    /// bf16 [K/g, N, 2].
    scales_and_offsets: Tensor,
    /// bf16 `[N]`.
    bias: Option<Tensor>,
    group: i64,
}

impl PreparedPackedCuda {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let mut shape = x.size();
        let in_features = shape.pop().expect("activations have a last dimension");
        shape.push(self.packed.size()[0] * CHANNELS);
        let x = x.f_reshape([-1, in_features])?.f_contiguous()?;
        let y = if x.size()[0] <= FEW_ROWS {
            x.f_internal_weight_int4pack_mm(&self.packed, self.group, &self.scales_and_offsets)?
        } else {
            self.multiply_tiles(&x)?
        };
        let y = match &self.bias {
            Some(bias) => y.f_add(bias)?,
            None => y,
        };
        y.f_view(shape.as_slice())
    }

    /// `x` [M, K] to [M, N].
    fn multiply_tiles(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (rows, in_features) = x.size2()?;
        let blocks = self.packed.size()[0];
        let scales = self.scales_and_offsets.f_select(2, 0)?.f_tr()?;
        let y = Tensor::f_empty([rows, blocks * CHANNELS], (x.kind(), x.device()))?;
        let step = (TILE_WEIGHTS / in_features / CHANNELS).clamp(1, blocks);
        for first in (0..blocks).step_by(step as usize) {
            let count = step.min(blocks - first);
            let (start, channels) = (first * CHANNELS, count * CHANNELS);
            let codes = unpack(&self.packed.f_narrow(0, first, count)?)?.f_to_kind(x.kind())?;
            let scale = scales.f_narrow(0, start, channels)?.f_unsqueeze(-1)?;
            let weight =
                codes.f_view([channels, -1, self.group])?.f_mul_(&scale)?.f_view([channels, in_features])?;
            y.f_narrow(1, start, channels)?.f_copy_(&x.f_mm(&weight.f_tr()?)?)?;
        }
        Ok(y)
    }
}

impl PreparedLinear for PreparedPackedCuda {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.packed, &self.scales_and_offsets].into_iter().chain(&self.bias))
    }
}
