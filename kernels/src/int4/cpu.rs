//! `_weight_int4pack_mm_for_cpu` for few rows, tiles unpacked from the same packed weight for many.

use std::sync::OnceLock;

use tch::{Device, Kind, TchError, Tensor};

use crate::packing::{self, OFFSET};
use crate::product::product;
use crate::table::{Kernel, Layer, PreparedLinear};
use crate::weight::{Codes, KernelError, QuantizedWeight, Scheme, bytes_of};

use super::{GROUPS, TILE_WEIGHTS, scales_and_offsets};

/// Up to this many rows libtorch's operation is used, above it tiles. Its time grows with the rows, that of
/// unpacking does not. Measured on one core with AVX-512 (K = 1024, N = 3072, g = 128, bf16, ms): 0.3 at 1
/// row, 2.3 at 16, 8 at 64, 17 at 128, 36 at 256; tiles take 15 to 20 at 16 to 256 rows.
const FEW_ROWS: i64 = 128;

/// Output channels must be a multiple of this.
const CHANNELS: i64 = 16;

/// bf16 only: the operation's other types are not vectorised, see `int4/tiles.rs`. Scales are bf16 too, so a
/// weight with a group of 128 takes 4.25 bits.
#[derive(Debug)]
pub struct PackedCpu;

impl Kernel for PackedCpu {
    fn name(&self) -> &'static str {
        "w4a16-int4pack-cpu"
    }

    fn supports(&self, layer: &Layer) -> bool {
        layer.device == Device::Cpu
            && layer.kind == Kind::BFloat16
            && matches!(
                layer.scheme,
                Scheme::W4A16 { group } | Scheme::W4A16Asym { group } if GROUPS.contains(&group)
            )
            && layer.out_features % CHANNELS == 0
            && Layout::of_this_machine().is_some()
    }

    fn prepare(
        &self,
        weight: QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let (packed, scale, zero, group) = match weight.codes() {
            Codes::Int4 { packed, scale, group } => (packed, scale, None, group),
            Codes::Int4Asym { packed, scale, zero, group } => (packed, scale, Some(zero), group),
            _ => unreachable!("supports() admits W4A16 only"),
        };
        let layout = Layout::of_this_machine().expect("supports() asks for it");
        let codes = packing::unpack(packed, weight.in_features())?;
        Ok(Box::new(PreparedPackedCpu {
            packed: convert(&codes)?,
            scales_and_offsets: scales_and_offsets(&scale.f_to_kind(layer.kind)?, zero)?,
            bias: weight
                .bias()
                .map(|bias| bias.f_to_device_(layer.device, layer.kind, false, false))
                .transpose()?,
            group: *group,
            has_offsets: zero.is_some(),
            layout,
        }))
    }
}

/// libtorch's packing, u8 [N, K/2], of codes, i8 [N, K].
fn convert(codes: &Tensor) -> Result<Tensor, TchError> {
    // The second argument is for CUDA's layout; the CPU ignores it.
    codes.f_to_kind(Kind::Int)?.f_add_scalar(OFFSET)?.f_internal_convert_weight_to_int4pack_for_cpu(2)
}

/// How libtorch packs for this processor (`weight_to_int4pack_kernel` in ATen/native/cpu/int4mm_kernel.cpp):
/// blocks of output channels, in each for every k the nibbles of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Output channels in a block; the last block may have fewer.
    block: i64,
    /// A byte holds channels n (low) and n + block/2 (high). Otherwise, and always in a last block that is
    /// not full, it holds the neighbours 2n and 2n+1.
    halves: bool,
}

impl Layout {
    /// AVX-512, AVX2, and what is not vectorised.
    const KNOWN: [Self; 5] = [
        Self { block: 64, halves: true },
        Self { block: 32, halves: true },
        Self { block: 64, halves: false },
        Self { block: 32, halves: false },
        Self { block: 16, halves: false },
    ];

    /// Packs a matrix that tells the layouts apart and sees which one gives it back; `None` where libtorch
    /// has a layout that is not known here, and the weight goes to another kernel.
    fn of_this_machine() -> Option<Self> {
        static FOUND: OnceLock<Option<Layout>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let (rows, columns) = (112, 6);
            let codes: Vec<i8> = (0..rows)
                .flat_map(|n| {
                    (0..columns)
                        .map(move |k| ((n + n / 16 * 5 + 3 * k * (n / 16 + 1) + n * k) % 16 - 8) as i8)
                })
                .collect();
            let codes = Tensor::from_slice(&codes).view([rows, columns]);
            let packed = convert(&codes).ok()?;
            let expected = codes.tr().to_kind(Kind::Float);
            Self::KNOWN.into_iter().find(|layout| {
                let parts: Result<Vec<_>, _> = layout
                    .tiles(rows, rows)
                    .iter()
                    .map(|tile| {
                        let mut unpacked = Tensor::f_empty(tile.shape(columns), (Kind::Float, Device::Cpu))?;
                        tile.unpack(&packed, &mut unpacked)?;
                        unpacked.f_view([columns, tile.channels()])
                    })
                    .collect();
                parts.is_ok_and(|parts| Tensor::cat(&parts, 1).equal(&expected))
            })
        })
    }

    /// Output channels 0 to `out_features` as tiles of whole blocks, each of about `channels` channels; the
    /// last block, if not full, is a tile of its own.
    fn tiles(&self, out_features: i64, channels: i64) -> Vec<Tile> {
        let full = out_features / self.block;
        let step = (channels / self.block).max(1);
        let mut tiles: Vec<Tile> = (0..full)
            .step_by(step as usize)
            .map(|first| Tile {
                start: first * self.block,
                blocks: step.min(full - first),
                block: self.block,
                halves: self.halves,
            })
            .collect();
        let rest = out_features % self.block;
        if rest > 0 {
            tiles.push(Tile { start: full * self.block, blocks: 1, block: rest, halves: false });
        }
        tiles
    }
}

/// Some blocks of output channels, one after the other.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// The first output channel.
    start: i64,
    blocks: i64,
    /// Output channels in each block.
    block: i64,
    /// See [`Layout::halves`].
    halves: bool,
}

impl Tile {
    fn channels(&self) -> i64 {
        self.blocks * self.block
    }

    /// The shape to unpack into; the same memory as [K, channels].
    fn shape(&self, in_features: i64) -> [i64; 4] {
        let half = self.block / 2;
        if self.halves { [in_features, self.blocks, 2, half] } else { [in_features, self.blocks, half, 2] }
    }

    /// Writes the codes of this tile of `packed` to `codes`, which has [`Tile::shape`] and any type.
    fn unpack(&self, packed: &Tensor, codes: &mut Tensor) -> Result<(), TchError> {
        let in_features = codes.size()[0];
        let bytes = packed.f_view([-1])?.f_narrow(
            0,
            self.start * in_features / 2,
            self.channels() * in_features / 2,
        )?;
        let bytes = bytes.f_view([self.blocks, in_features, self.block / 2])?;
        let pair = if self.halves { 2 } else { 3 };
        for (half, nibbles) in [packing::low(&bytes)?, packing::high(&bytes)?].iter().enumerate() {
            let nibbles = nibbles.f_view_dtype(Kind::Int8)?.f_sub_scalar_(OFFSET)?.f_transpose(0, 1)?;
            codes.f_select(pair, half as i64)?.f_copy_(&nibbles)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct PreparedPackedCpu {
    /// u8 [N, K/2] in libtorch's order.
    packed: Tensor,
    /// bf16 [K/g, N, 2].
    scales_and_offsets: Tensor,
    /// bf16 `[N]`.
    bias: Option<Tensor>,
    group: i64,
    /// Whether any zero point is not 0.
    has_offsets: bool,
    layout: Layout,
}

impl PreparedPackedCpu {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let mut shape = x.size();
        let in_features = shape.pop().expect("activations have a last dimension");
        shape.push(self.packed.size()[0]);
        let x = x.f_reshape([-1, in_features])?;
        let y = if x.size()[0] <= FEW_ROWS {
            x.f_contiguous()?.f_internal_weight_int4pack_mm_for_cpu(
                &self.packed,
                self.group,
                &self.scales_and_offsets,
            )?
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
        let out_features = self.packed.size()[0];
        let groups = in_features / self.group;
        let scales = self.scales_and_offsets.f_select(2, 0)?;
        let offsets = self.scales_and_offsets.f_select(2, 1)?;
        let y = Tensor::f_empty([rows, out_features], (x.kind(), x.device()))?;
        for tile in self.layout.tiles(out_features, TILE_WEIGHTS / in_features) {
            let channels = tile.channels();
            let mut weight = Tensor::f_empty(tile.shape(in_features), (x.kind(), x.device()))?;
            tile.unpack(&self.packed, &mut weight)?;
            let scale = scales.f_narrow(1, tile.start, channels)?.f_unsqueeze(1)?;
            let mut grouped = weight.f_view([groups, self.group, channels])?;
            if self.has_offsets {
                // Whole numbers again, so that one product rounds, not a product and a sum.
                let offset = offsets.f_narrow(1, tile.start, channels)?.f_unsqueeze(1)?;
                let _ = grouped.f_add_(&offset.f_div(&scale)?.f_round()?)?;
            }
            let _ = grouped.f_mul_(&scale)?;
            let product = product(x, &weight.f_view([in_features, channels])?)?;
            y.f_narrow(1, tile.start, channels)?.f_copy_(&product)?;
        }
        Ok(y)
    }
}

impl PreparedLinear for PreparedPackedCpu {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.packed, &self.scales_and_offsets].into_iter().chain(&self.bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_this_machine_is_known() {
        assert!(Layout::of_this_machine().is_some());
    }

    #[test]
    fn tiles_cover_every_channel_once() {
        for out_features in [16, 48, 64, 80, 192, 1008] {
            for layout in Layout::KNOWN {
                let tiles = layout.tiles(out_features, 128);
                let mut next = 0;
                for tile in &tiles {
                    assert_eq!(tile.start, next);
                    next += tile.channels();
                }
                assert_eq!(next, out_features);
            }
        }
    }
}
