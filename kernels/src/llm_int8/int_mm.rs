//! LLM.int8() in operations of libtorch around the exact integer product of [`crate::int8`], and outlier columns beside it.

use tch::{TchError, Tensor};

use super::{SUM_SCALE, dequantize_columns, quantize_rows};
use crate::activations::CUDA_LEAST_ROWS;
use crate::int8::{IntMatrix, fits_int32};
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
        let Codes::LlmInt8 { weight: codes, absmax, threshold } = weight.codes() else {
            unreachable!("the table has it for LLM.int8() only");
        };
        Ok(Box::new(PreparedIntMm {
            weight: IntMatrix::new(codes, layer.device)?,
            absmax: absmax.f_to_device(layer.device)?,
            threshold: *threshold,
            bias: weight
                .bias()
                .map(|bias| bias.f_to_device_(layer.device, layer.kind, false, false))
                .transpose()?,
        }))
    }
}

#[derive(Debug)]
struct PreparedIntMm {
    weight: IntMatrix,
    /// f32 `[N]`.
    absmax: Tensor,
    threshold: f64,
    /// `[N]` in the activations' type.
    bias: Option<Tensor>,
}

impl PreparedIntMm {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let kind = x.kind();
        let mut shape = x.size();
        let in_features = shape.pop().expect("activations have a last dimension");
        shape.push(self.weight.out_features());
        let x = x.f_reshape([-1, in_features])?;
        let rows = quantize_rows(&x, self.threshold)?;
        let count = x.size()[0];
        let missing = if x.device().is_cuda() { (CUDA_LEAST_ROWS - count).max(0) } else { 0 };
        let codes = if missing > 0 { rows.codes.f_constant_pad_nd([0, 0, 0, missing])? } else { rows.codes };
        let sums = self.weight.product(&codes)?.f_narrow(0, 0, count)?;
        let mut y = rows.absmax.f_mul(&self.absmax)?;
        let _ = y.f_mul_(&sums)?.f_mul_scalar_(SUM_SCALE)?;
        if let Some(bias) = &self.bias {
            let _ = y.f_add_(bias)?;
        }
        let mut y = y.f_to_kind(kind)?;
        if let Some(columns) = &rows.outliers {
            let weight = dequantize_columns(&self.weight.codes()?, &self.absmax, columns)?.f_to_kind(kind)?;
            y = y.f_addmm(&x.f_index_select(1, columns)?, &weight.f_tr()?)?;
        }
        y.f_contiguous()?.f_view(shape.as_slice())
    }
}

impl PreparedLinear for PreparedIntMm {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        self.weight.bytes() + bytes_of([&self.absmax].into_iter().chain(&self.bias))
    }
}
