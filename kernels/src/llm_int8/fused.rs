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
use crate::int8::fits_int32;
use crate::table::{Kernel, Layer, PreparedLinear};
use crate::weight::{Codes, KernelError, QuantizedWeight, Scheme, bytes_of};

/// See the module's documentation. The weight is brought into the order of the processor's unit once, see [`Matrix`].
#[derive(Debug)]
pub struct Fused;

impl Kernel for Fused {
    fn name(&self) -> &'static str {
        "llm-int8-cpu-fused"
    }

    fn supports(&self, layer: &Layer) -> bool {
        layer.scheme == Scheme::LlmInt8
            && layer.device == Device::Cpu
            && matches!(layer.kind, Kind::Float | Kind::BFloat16 | Kind::Half)
            && fits_int32(layer)
    }

    fn prepare(
        &self,
        weight: QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::LlmInt8 { weight: codes, absmax, threshold } = weight.codes() else {
            unreachable!("supports() admits LLM.int8() only");
        };
        // Rounded to the activations' type first, as libtorch adds it.
        let rounded = |bias: &Tensor| bias.f_to_kind(layer.kind)?.f_to_kind(Kind::Float)?.f_contiguous();
        let isa = Isa::here();
        Ok(Box::new(PreparedFused {
            absmax: absmax.f_view([-1])?.f_contiguous()?,
            threshold: *threshold,
            bias: weight.bias().map(rounded).transpose()?,
            codes: Matrix::new(codes, isa)?,
            isa,
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
    isa: Isa,
}

impl PreparedFused {
    /// `x` [M, K] without gaps to `y` [M, N]; gives the columns that are still to be added.
    fn multiply<T: Float>(&self, x: &Tensor, y: &mut Tensor) -> Vec<i64> {
        let rows = Rows::quantize(elements::<T>(x), self.codes.in_features(), self.threshold, self.isa);
        let sink = Scaled {
            y: Columns::<T>::new(y),
            rows: &rows.absmax,
            channels: elements(&self.absmax),
            bias: self.bias.as_ref().map(elements),
        };
        self.codes.multiply(&rows.codes, &sink);
        rows.outliers
    }

    fn add_outliers(&self, x: &Tensor, y: &Tensor, columns: &[i64]) -> Result<Tensor, TchError> {
        let weight = dequantize(&self.codes.columns(columns)?, &self.absmax)?.f_to_kind(x.kind())?;
        y.f_addmm(&x.f_index_select(1, &Tensor::from_slice(columns))?, &weight.f_tr()?)
    }
}

impl PreparedLinear for PreparedFused {
    fn forward(&self, x: &Tensor) -> Tensor {
        let (out_features, in_features) = (self.codes.out_features() as i64, self.codes.in_features() as i64);
        let mut shape = x.size();
        *shape.last_mut().expect("activations have a last dimension") = out_features;
        let x = x.reshape([-1, in_features]).contiguous();
        let mut y = Tensor::empty([x.size()[0], out_features], (x.kind(), Device::Cpu));
        let columns = for_kind!(x.kind(), multiplied(self, &x, &mut y));
        if !columns.is_empty() {
            y = self
                .add_outliers(&x, &y, &columns)
                .expect("its shape was checked when the layer was prepared");
        }
        y.view(shape.as_slice())
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.absmax].into_iter().chain(&self.bias)) + self.codes.bytes()
    }
}

fn multiplied<T: Float>(layer: &PreparedFused, x: &Tensor, y: &mut Tensor) -> Vec<i64> {
    layer.multiply::<T>(x, y)
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
