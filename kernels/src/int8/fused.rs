//! W8A8 on a CPU in one pass: rows are quantized, multiplied in int8 and scaled, a block at a time.

use tch::{Device, Kind, Tensor};

use super::matrix::fits_int32;
use crate::cpu::Isa;
use crate::cpu::float::{Float, for_kind};
use crate::cpu::gemm::{Sink, put};
use crate::cpu::matrix::Matrix;
use crate::cpu::rows::{Rows, Rule};
use crate::cpu::view::{Columns, elements};
use crate::input::Input;
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
        // Rounded to the activations' type first: that is what a checkpoint loaded in that type means.
        let rounded = |scale: &Tensor| scale.f_to_kind(layer.kind)?.f_to_kind(Kind::Float);
        let (codes, scale, rule) = match weight.codes() {
            Codes::Int8 { weight, scale } => (weight, rounded(scale)?, Rule::Dynamic),
            Codes::Int8Static { weight, scale, input_scale } => {
                let input_scale = f32::try_from(rounded(input_scale)?.f_view([-1])?.f_get(0)?)?;
                (weight, rounded(scale)?, Rule::Static(input_scale))
            }
            Codes::Int8Torchao { weight, scale } => (weight, scale.f_to_kind(Kind::Float)?, Rule::Torchao),
            _ => unreachable!("the table has it for W8A8 only"),
        };
        let bias = weight.bias().map(|bias| bias.f_to_kind(Kind::Float)?.f_contiguous()).transpose()?;
        let scale = scale.f_view([-1])?.f_contiguous()?;
        Ok(Box::new(PreparedFused { codes: Matrix::new(codes, Isa::here())?, scale, bias, rule }))
    }
}

#[derive(Debug)]
struct PreparedFused {
    codes: Matrix,
    /// f32 `[N]`.
    scale: Tensor,
    /// f32 `[N]`.
    bias: Option<Tensor>,
    rule: Rule,
}

impl PreparedLinear for PreparedFused {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_input(&Input::new(x))
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        let shape = (self.codes.out_features() as i64, self.codes.in_features() as i64);
        let mut y = Tensor::empty(input.output_size(shape), (input.kind(), Device::Cpu));
        for_kind!(input.kind(), multiply(self, &input.rows(self.rule, self.codes.isa()), &mut y));
        y
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.scale].into_iter().chain(&self.bias)) + self.codes.bytes()
    }
}

/// To `y` [..., N], without gaps.
fn multiply<T: Float>(layer: &PreparedFused, rows: &Rows, y: &mut Tensor) {
    let sink = Scaled {
        y: Columns::<T>::new(y),
        row_scales: &rows.scales,
        scale: elements(&layer.scale),
        bias: layer.bias.as_ref().map(elements),
        rounds_sums: matches!(layer.rule, Rule::Torchao),
    };
    layer.codes.multiply(&rows.panel(layer.codes.isa()), rows.scales.len(), &sink);
}

/// Makes outputs of sums: times the scales of row and output channel, plus the bias.
struct Scaled<'a, T> {
    y: Columns<T>,
    row_scales: &'a [f32],
    scale: &'a [f32],
    bias: Option<&'a [f32]>,
    /// torchao rounds the sums, scaled by the activation's scale, to the activation's type.
    rounds_sums: bool,
}

impl<T: Float> Sink for Scaled<'_, T> {
    // Becomes vectors of the unit whose loop it is part of.
    #[inline(always)]
    fn take(&self, row: usize, first: usize, sums: &[i32]) {
        // SAFETY: the output outlives `multiply`, which gives each part out once.
        let y = unsafe { self.y.part(row, first, sums.len()) };
        let row_scale = self.row_scales[row];
        let of = |sum: i32| {
            let scaled = sum as f32 * row_scale;
            if self.rounds_sums { T::rounded(scaled) } else { scaled }
        };
        let scaled = sums.iter().zip(&self.scale[first..][..sums.len()]).map(|(&sum, scale)| of(sum) * scale);
        put(y, scaled, self.bias.map(|bias| &bias[first..]));
    }
}
