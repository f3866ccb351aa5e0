//! A tile of output channels dequantized and multiplied, straight from bitsandbytes' packing: any type, any device,
//! any number of rows.
//!
//! A byte is looked up as the pair of values that it stands for, which libtorch copies as one f64: on one core with
//! AVX2 that takes 0.17 ms for 2^18 weights in f32, half of what multiplying them by 32 rows takes.

use tch::{Device, Kind, TchError, Tensor};

use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};

use super::{Absmax, TABLE, blocks};

/// Weights in a tile: in f32 it stays in the second-level cache while it is made and multiplied.
const TILE_WEIGHTS: i64 = 1 << 18;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Tiles;

impl Kernel for Tiles {
    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::Nf4 { packed, absmax, block, compute } = weight.codes() else {
            unreachable!("the table has it for NF4 only");
        };
        Ok(Box::new(PreparedTiles {
            packed: packed.f_to_device(layer.device)?,
            absmax: absmax.to_device(layer.device)?,
            block: *block,
            compute: *compute,
            out_features: weight.out_features(),
            in_features: weight.in_features(),
            bias: weight
                .bias()
                .map(|bias| bias.f_to_device_(layer.device, *compute, false, false))
                .transpose()?,
        }))
    }
}

/// The two values of every byte, in memory order, as f64 `[256]`.
fn pairs(device: Device) -> Result<Tensor, TchError> {
    let values: Vec<f32> = (0..256).flat_map(|byte: usize| [TABLE[byte >> 4], TABLE[byte & 15]]).collect();
    Tensor::from_slice(&values).f_view_dtype(Kind::Double)?.f_to_device(device)
}

#[derive(Debug)]
struct PreparedTiles {
    /// u8 [⌈N·K/2⌉].
    packed: Tensor,
    absmax: Absmax,
    block: i64,
    /// The type in which activations are multiplied.
    compute: Kind,
    out_features: i64,
    in_features: i64,
    /// `[N]` in the type `compute`.
    bias: Option<Tensor>,
}

impl PreparedTiles {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let mut shape = x.size();
        shape.pop();
        shape.push(self.out_features);
        let kind = x.kind();
        let x = x.f_reshape([-1, self.in_features])?.f_to_kind(self.compute)?;
        // Not kept: in many small layers its 2 KiB would count.
        let pairs = pairs(x.device())?;
        let y = Tensor::f_empty([x.size()[0], self.out_features], (self.compute, x.device()))?;
        let tile_rows = (TILE_WEIGHTS / self.in_features).clamp(1, self.out_features);
        for start in (0..self.out_features).step_by(tile_rows as usize) {
            let count = tile_rows.min(self.out_features - start);
            let bias = self.bias.as_ref().map(|bias| bias.f_narrow(0, start, count)).transpose()?;
            let product = x.f_linear(&self.dequantize(&pairs, start, count)?, bias.as_ref())?;
            y.f_narrow(1, start, count)?.f_copy_(&product)?;
        }
        y.f_to_kind(kind)?.f_view(shape.as_slice())
    }

    /// The weights of `count` output channels from `start` on, [count, K], looked up in [`pairs`]. Blocks that begin or
    /// end in other channels are dequantized whole.
    fn dequantize(&self, pairs: &Tensor, start: i64, count: i64) -> Result<Tensor, TchError> {
        let all = self.out_features * self.in_features;
        let (first, last) = (start * self.in_features, (start + count) * self.in_features);
        let (first_block, last_block) = (first / self.block, blocks(last, self.block));
        let (begin, end) = (first_block * self.block, (last_block * self.block).min(all));
        // Blocks are even, so `begin` is at a byte.
        let bytes = self.packed.f_narrow(0, begin / 2, (end - begin + 1) / 2)?;
        let values = pairs.f_index_select(0, &bytes.f_to_kind(Kind::Int)?)?.f_view_dtype(Kind::Float)?;
        let absmax = self.absmax.values(first_block, last_block - first_block)?;
        let whole = (end - begin) / self.block;
        if whole > 0 {
            let mut blocks = values.f_narrow(0, 0, whole * self.block)?.f_view([whole, self.block])?;
            let _ = blocks.f_mul_(&absmax.f_narrow(0, 0, whole)?.f_unsqueeze(1)?)?;
        }
        let rest = end - begin - whole * self.block;
        if rest > 0 {
            let mut block = values.f_narrow(0, whole * self.block, rest)?;
            let _ = block.f_mul_(&absmax.f_narrow(0, whole, 1)?)?;
        }
        let values = values.f_narrow(0, first - begin, last - first)?;
        values.f_to_kind(self.compute)?.f_view([count, self.in_features])
    }
}

impl PreparedLinear for PreparedTiles {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.packed].into_iter().chain(&self.bias)) + self.absmax.bytes()
    }
}
