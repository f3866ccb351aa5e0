//! LLM.int8() on CUDA (see [`mod@crate::llm_int8`]): outlier columns found, rows made codes, codes multiplied and scaled in
//! three launches; outlier columns are gathered, multiplied and added by libtorch.

use half::f16;
use tch::{Kind, Tensor};

use super::dequantize_columns;
use crate::cuda::{self, Argument, Function, Grid, Source};
use crate::input::Input;
use crate::int8::launches::{CudaRows as Int8Rows, CudaWeight, FEW, MANY, Scaling};
use crate::int8::{WIDE, fits_int32};
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};

static ROWS: Source = Source::new(
    "llm_int8_rows",
    include_str!("../../cuda/llm_int8_rows.cu"),
    &[
        "llm_int8_columns_f32",
        "llm_int8_rows_f32",
        "llm_int8_columns_f16",
        "llm_int8_rows_f16",
        "llm_int8_columns_bf16",
        "llm_int8_rows_bf16",
    ],
);

static SOURCES: &[&Source] = &[&ROWS, &FEW, &MANY, &WIDE];

/// Columns of a block that looks for outliers.
const COLUMNS: i64 = 128;
/// Blocks that share a column's rows, at most.
const ROW_BLOCKS: i64 = 64;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct CudaFused;

impl Kernel for CudaFused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half() && fits_int32(layer) && cuda::works(layer.device, self.sources())
    }

    fn sources(&self) -> &'static [&'static Source] {
        SOURCES
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::LlmInt8 { weight: codes, absmax, threshold } = weight.codes() else {
            unreachable!("the table has it for LLM.int8() only");
        };
        // The bias is one of the activations' type.
        let bias = weight.bias().map(|bias| bias.f_to_kind(layer.kind)).transpose()?;
        let first = match layer.kind {
            Kind::Float => 0,
            Kind::Half => 2,
            _ => 4,
        };
        let entry = |number: usize| Function::of(&ROWS, ROWS.functions[first + number], layer.device, 0);
        Ok(Box::new(PreparedLlmInt8 {
            weight: CudaWeight::new(codes, absmax, bias.as_ref(), layer.device, layer.kind)?,
            in_features: weight.in_features(),
            // Compared with values in half precision.
            threshold: f16::from_f64(*threshold).to_f32(),
            columns: entry(0)?,
            rows: entry(1)?,
        }))
    }
}

/// Rows as codes, and what is not quantized of them.
#[derive(Debug)]
pub(crate) struct CudaRows {
    rows: Int8Rows,
    /// The columns with outliers, i64 `[C]`, and their values [M, C].
    outliers: Option<(Tensor, Tensor)>,
}

#[derive(Debug)]
struct PreparedLlmInt8 {
    weight: CudaWeight,
    /// K without padding.
    in_features: i64,
    threshold: f32,
    columns: Function,
    rows: Function,
}

impl PreparedLlmInt8 {
    fn multiply(&self, input: &Input<'_>) -> Result<Tensor, KernelError> {
        let shape = input.output_size((self.weight.codes.size()[0], self.in_features));
        let made =
            || self.rows_of(input.tensor()).expect("rows are quantized where their layer was prepared");
        let CudaRows { outliers, rows } = &*input.cuda_llm_int8_rows(self.threshold, made);
        let mut y = self.weight.scaled(rows, Scaling::Magnitudes)?;
        if let Some((columns, values)) = outliers {
            let weight = dequantize_columns(&self.weight.codes, &self.weight.scale, columns)?;
            y = y.f_addmm(values, &weight.f_to_kind(values.kind())?.f_tr()?)?;
        }
        Ok(y.f_view(shape.as_slice())?)
    }

    fn rows_of(&self, x: &Tensor) -> Result<CudaRows, KernelError> {
        let x = x.f_reshape([-1, self.in_features])?.f_contiguous()?;
        let flags = if self.threshold > 0.0 { Some(self.outlier_columns(&x)?) } else { None };
        let rows = self.quantized(&x, flags.as_ref())?;
        let mut outliers = None;
        if let Some(flags) = flags {
            // Waits for the card: how many there are decides a shape.
            let columns = flags.f_nonzero()?.f_view([-1])?;
            if columns.numel() > 0 {
                let values = x.f_index_select(1, &columns)?;
                outliers = Some((columns, values));
            }
        }
        Ok(CudaRows { outliers, rows })
    }

    /// u8 `[K]`: 1 where a column has an outlier.
    fn outlier_columns(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let (count, width) = x.size2()?;
        let flags = Tensor::f_zeros([width], (Kind::Uint8, x.device()))?;
        let blocks = [width.div_euclid(COLUMNS) + 1, count.min(ROW_BLOCKS), 1].map(|blocks| blocks as u32);
        let grid = Grid { blocks, threads: COLUMNS as u32, shared_bytes: 0 };
        let arguments = [
            Argument::Tensor(x),
            Argument::Tensor(&flags),
            Argument::Int(count as i32),
            Argument::Int(width as i32),
            Argument::Float(self.threshold),
        ];
        // SAFETY: these are llm_int8_columns' parameters, and the tensors have the shapes that it tells.
        unsafe { self.columns.launch(grid, &arguments)? };
        Ok(flags)
    }

    fn quantized(&self, x: &Tensor, flags: Option<&Tensor>) -> Result<Int8Rows, KernelError> {
        let rows = Int8Rows::empty(x)?;
        let arguments = [
            Argument::Tensor(x),
            Argument::from(flags),
            Argument::Tensor(&rows.codes),
            Argument::Tensor(&rows.scales),
            Argument::Int(x.size()[1] as i32),
            Argument::Int(rows.codes.size()[1] as i32),
            Argument::Float(self.threshold),
        ];
        // SAFETY: these are llm_int8_rows' parameters, and the tensors have the shapes that it tells.
        unsafe { self.rows.launch(rows.grid(), &arguments)? };
        Ok(rows)
    }
}

impl PreparedLinear for PreparedLlmInt8 {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_input(&Input::new(x))
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        self.multiply(input).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        let CudaWeight { codes, scale, bias, .. } = &self.weight;
        bytes_of([codes, scale].into_iter().chain(bias))
    }
}
