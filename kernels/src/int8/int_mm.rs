//! W8A8 between operations of libtorch: int8 by int8 to int32, exact, at every number of rows; the product is libtorch's `_int_mm` on CUDA, our
//! own on a CPU.

use tch::{Kind, TchError, Tensor};

use super::matrix::{IntMatrix, fits_int32};
use crate::activations::{Activations, Int8Rows};
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct IntMm;

impl Kernel for IntMm {
    fn supports(&self, layer: &Layer) -> bool {
        fits_int32(layer)
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        // Rounded to the activations' type first: that is what a checkpoint loaded in that type means.
        let rounded = |scale: &Tensor| scale.f_to_device_(layer.device, layer.kind, false, false);
        let (codes, scale, activations) = match weight.codes() {
            Codes::Int8 { weight, scale } => (weight, rounded(scale)?, Activations::Dynamic),
            Codes::Int8Static { weight, scale, input_scale } => {
                (weight, rounded(scale)?, Activations::Static(rounded(input_scale)?))
            }
            Codes::Int8Torchao { weight, scale } => {
                (weight, scale.f_to_device(layer.device)?, Activations::Torchao)
            }
            _ => unreachable!("the table has it for W8A8 only"),
        };
        let bias = weight
            .bias()
            .map(|bias| bias.f_to_device_(layer.device, Kind::Float, false, true))
            .transpose()?;
        Ok(Box::new(PreparedIntMm {
            activations,
            weight: IntMatrix::new(codes, layer.device)?,
            scale: scale.f_to_kind(Kind::Float)?.f_view([-1])?,
            bias,
        }))
    }
}

#[derive(Debug)]
struct PreparedIntMm {
    weight: IntMatrix,
    /// f32 `[N]`.
    scale: Tensor,
    activations: Activations,
    /// f32 `[N]`.
    bias: Option<Tensor>,
}

impl PreparedIntMm {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let rows = Int8Rows::quantize(x, &self.activations)?;
        let sums = self.weight.product(&rows.codes)?.f_to_kind(Kind::Float)?;
        rows.scaled(&sums, &self.scale, self.bias.as_ref())
    }
}

impl PreparedLinear for PreparedIntMm {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        let input_scale = match &self.activations {
            Activations::Static(scale) => Some(scale),
            Activations::Dynamic | Activations::Torchao => None,
        };
        self.weight.bytes() + bytes_of([&self.scale].into_iter().chain(&self.bias).chain(input_scale))
    }
}
