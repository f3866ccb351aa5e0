//! W8A16 by tiles of output channels that are unpacked and multiplied: any type, any device, any number of rows.

use tch::{Device, TchError, Tensor};

use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::product::product;
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// Weights in a tile. On a CPU it stays in the second-level cache while it is converted and multiplied, and is small
/// beside the matrix of even a small model, since it counts as memory, too. (Four times as much is not faster.)
fn tile_weights(device: Device) -> i64 {
    if device.is_cuda() { 1 << 25 } else { 1 << 16 }
}

/// See the module's documentation. Any type, any device, any number of rows.
#[derive(Debug)]
pub(crate) struct Tiles;

impl Kernel for Tiles {
    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::Int8A16 { weight: codes, scale } = weight.codes() else {
            unreachable!("the table has it for W8A16 only");
        };
        let moved = |tensor: &Tensor| tensor.f_to_device_(layer.device, layer.kind, false, false);
        Ok(Box::new(PreparedTiles {
            weight: codes.f_to_device(layer.device)?.f_contiguous()?,
            scale: moved(scale)?.f_view([-1])?,
            bias: weight.bias().map(moved).transpose()?,
        }))
    }
}

#[derive(Debug)]
struct PreparedTiles {
    /// i8 [N, K].
    weight: Tensor,
    /// `[N]` in the activations' type.
    scale: Tensor,
    /// `[N]` in the activations' type.
    bias: Option<Tensor>,
}

impl PreparedTiles {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (out_features, in_features) = self.weight.size2()?;
        let mut shape = x.size();
        *shape.last_mut().expect("activations have a last dimension") = out_features;
        let x = x.f_reshape([-1, in_features])?;
        let mut y = self.multiply_tiles(&x)?;
        if let Some(bias) = &self.bias {
            let _ = y.f_add_(bias)?;
        }
        y.f_view(shape.as_slice())
    }

    /// `x` [M, K] to [M, N].
    fn multiply_tiles(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (out_features, in_features) = self.weight.size2()?;
        let y = Tensor::f_empty([x.size()[0], out_features], (x.kind(), x.device()))?;
        let tile_rows = (tile_weights(x.device()) / in_features).clamp(1, out_features);
        let tile = Tensor::f_empty([tile_rows, in_features], (x.kind(), x.device()))?;
        for start in (0..out_features).step_by(tile_rows as usize) {
            let count = tile_rows.min(out_features - start);
            let scale = self.scale.f_narrow(0, start, count)?.f_unsqueeze(-1)?;
            let mut tile = tile.f_narrow(0, 0, count)?;
            tile.f_copy_(&self.weight.f_narrow(0, start, count)?)?;
            let _ = tile.f_mul_(&scale)?;
            y.f_narrow(1, start, count)?.f_copy_(&product(x, &tile.f_tr()?)?)?;
        }
        Ok(y)
    }
}

impl PreparedLinear for PreparedTiles {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.weight, &self.scale].into_iter().chain(&self.bias))
    }
}
