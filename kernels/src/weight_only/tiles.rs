//! Weights of 1 to 8 bits by libtorch's operations: a tile of output channels is unpacked and multiplied as a matrix. Any type, any device,
//! any number of rows.

use tch::{Kind, TchError, Tensor};

use crate::bitstream;
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::product::product;
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// Weights in a tile: it stays in the second-level cache while it is unpacked and multiplied.
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
        let Codes::Bits { packed, bits, scale, zero, group } = weight.codes() else {
            unreachable!("the table has it for weight-only schemes only");
        };
        let moved = |tensor: &Tensor| tensor.f_to_device_(layer.device, layer.kind, false, false);
        Ok(Box::new(PreparedTiles {
            packed: packed.f_to_device(layer.device)?,
            scale: moved(scale)?,
            zero: zero.as_ref().map(|zero| zero.f_to_device(layer.device)).transpose()?,
            bias: weight.bias().map(moved).transpose()?,
            bits: *bits,
            group: *group,
            in_features: weight.in_features(),
        }))
    }
}

#[derive(Debug)]
struct PreparedTiles {
    /// i32 [N, ⌈K · bits / 32⌉].
    packed: Tensor,
    /// [N, K/g] in the activations' type.
    scale: Tensor,
    /// u8 [N, K/g].
    zero: Option<Tensor>,
    /// `[N]` in the activations' type.
    bias: Option<Tensor>,
    bits: u32,
    group: i64,
    in_features: i64,
}

impl PreparedTiles {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let out_features = self.packed.size()[0];
        let mut shape = x.size();
        shape.pop();
        shape.push(out_features);
        let x = x.f_reshape([-1, self.in_features])?;
        let y = Tensor::f_empty([x.size()[0], out_features], (x.kind(), x.device()))?;
        let step = (TILE_WEIGHTS / self.in_features).clamp(1, out_features);
        for start in (0..out_features).step_by(step as usize) {
            let count = step.min(out_features - start);
            let weight = self.tile(start, count, x.kind())?;
            y.f_narrow(1, start, count)?.f_copy_(&product(&x, &weight.f_tr()?)?)?;
        }
        let y = match &self.bias {
            Some(bias) => y.f_add(bias)?,
            None => y,
        };
        y.f_view(shape.as_slice())
    }

    /// The weights [count, K] of some output channels.
    fn tile(&self, start: i64, count: i64, kind: Kind) -> Result<Tensor, TchError> {
        let codes = bitstream::unpack(&self.packed.f_narrow(0, start, count)?, self.bits, self.in_features)?;
        let mut weight = codes.f_view([count, -1, self.group])?.f_to_kind(kind)?;
        // Whole numbers up to 255, which every type holds.
        match &self.zero {
            Some(zero) => {
                let _ = weight.f_sub_(&zero.f_narrow(0, start, count)?.f_unsqueeze(-1)?)?;
            }
            None => {
                let _ = weight.f_sub_scalar_(1_i64 << (self.bits - 1))?;
            }
        }
        let _ = weight.f_mul_(&self.scale.f_narrow(0, start, count)?.f_unsqueeze(-1)?)?;
        weight.f_view([count, self.in_features])
    }
}

impl PreparedLinear for PreparedTiles {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        let optional = self.zero.iter().chain(&self.bias);
        bytes_of([&self.packed, &self.scale].into_iter().chain(optional))
    }
}
