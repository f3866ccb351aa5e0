//! LLM.int8() on a CPU: rows are quantized, multiplied in int8 and scaled in one pass over the weight; outlier columns are
//! added by a product of these columns alone.

use tch::{Device, Kind, TchError, Tensor};

use super::rows::Rows;
use super::{SUM_SCALE, dequantize};
use crate::cpu::Isa;
use crate::cpu::float::{Float, for_kind};
use crate::cpu::gemm::{Sink, put};
use crate::cpu::matrix::Matrix;
use crate::cpu::view::{Columns, elements};
use crate::input::Input;
use crate::int8::fits_int32;
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// See the module's documentation. The weight is brought into the order of the processor's unit once (`cpu::matrix`).
#[derive(Debug)]
pub(crate) struct Fused;

impl Kernel for Fused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half() && fits_int32(layer)
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::LlmInt8 { weight: codes, absmax, threshold } = weight.codes() else {
            unreachable!("the table has it for LLM.int8() only");
        };
        // Rounded to the activations' type first, as libtorch adds it.
        let rounded = |bias: &Tensor| bias.f_to_kind(layer.kind)?.f_to_kind(Kind::Float)?.f_contiguous();
        Ok(Box::new(PreparedFused {
            absmax: absmax.f_view([-1])?.f_contiguous()?,
            threshold: *threshold,
            bias: weight.bias().map(rounded).transpose()?,
            codes: Matrix::new(codes, Isa::here())?,
        }))
    }
}

#[derive(Debug)]
struct PreparedFused {
    codes: Matrix,
    /// f32 `[N]`.
    absmax: Tensor,
    threshold: f64,
    /// f32 `[N]`.
    bias: Option<Tensor>,
}

impl PreparedFused {
    /// To `y` [M, N], all but the outlier columns.
    fn multiply<T: Float>(&self, rows: &Rows, y: &mut Tensor) {
        let sink = Scaled {
            y: Columns::<T>::new(y),
            rows: &rows.absmax,
            channels: elements(&self.absmax),
            bias: self.bias.as_ref().map(elements),
        };
        self.codes.multiply(&rows.panel(self.codes.isa()), rows.absmax.len(), &sink);
    }

    fn add_outliers(&self, x: &Tensor, y: &Tensor, columns: &[i64]) -> Result<Tensor, TchError> {
        let weight = dequantize(&self.codes.columns(columns)?, &self.absmax)?.f_to_kind(x.kind())?;
        y.f_addmm(&x.f_index_select(1, &Tensor::from_slice(columns))?, &weight.f_tr()?)
    }
}

impl PreparedLinear for PreparedFused {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_input(&Input::new(x))
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        let (out_features, in_features) = (self.codes.out_features() as i64, self.codes.in_features() as i64);
        let (shape, kind) = (input.output_size((out_features, in_features)), input.kind());
        let rows = input.llm_int8_rows(self.threshold, self.codes.isa());
        let mut y = Tensor::empty([rows.absmax.len() as i64, out_features], (kind, Device::Cpu));
        for_kind!(kind, multiply(self, &rows, &mut y));
        if !rows.outliers.is_empty() {
            let x = input.tensor().reshape([-1, in_features]);
            y = self
                .add_outliers(&x, &y, &rows.outliers)
                .expect("its shape was checked when the layer was prepared");
        }
        y.view(shape.as_slice())
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.absmax].into_iter().chain(&self.bias)) + self.codes.bytes()
    }
}

fn multiply<T: Float>(layer: &PreparedFused, rows: &Rows, y: &mut Tensor) {
    layer.multiply::<T>(rows, y);
}

/// Makes outputs of sums in bitsandbytes' order: the two magnitudes, the sum, the constant, the bias.
struct Scaled<'a, T> {
    y: Columns<T>,
    rows: &'a [f32],
    channels: &'a [f32],
    bias: Option<&'a [f32]>,
}

impl<T: Float> Sink for Scaled<'_, T> {
    // Becomes vectors of the unit whose loop it is part of.
    #[inline(always)]
    fn take(&self, row: usize, first: usize, sums: &[i32]) {
        // SAFETY: the output outlives `multiply`, which gives each part out once.
        let y = unsafe { self.y.part(row, first, sums.len()) };
        let of_row = self.rows[row];
        let of_channels = &self.channels[first..][..sums.len()];
        let scaled = sums
            .iter()
            .zip(of_channels)
            .map(|(&sum, of_channel)| of_row * of_channel * sum as f32 * SUM_SCALE as f32);
        put(y, scaled, self.bias.map(|bias| &bias[first..]));
    }
}
