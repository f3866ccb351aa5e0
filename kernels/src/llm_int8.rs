//! LLM.int8() (Dettmers et al., 2022, arXiv 2208.07339), as bitsandbytes 0.50 computes it: int8 weights with the
//! largest magnitude of each output channel, int8 activations with that of each token, and input channels in which any
//! activation is an outlier multiplied in floating point.
//!
//! Which input channels those are is decided for all tokens that are multiplied together. **What comes out for a token
//! depends on the other tokens of its batch**: so the method is defined, and so bitsandbytes computes.
//!
//! Codes, integer sums and their scaling are those of bitsandbytes on a CPU, to the last bit of the output: sums are scaled
//! and biased in f32, rounded to the activations' type, and the product of the outlier columns is added in that type.
//! bitsandbytes' CUDA kernels divide approximately and round scaled sums to f16 first.

use tch::{Kind, TchError, Tensor};

use crate::activations::CUDA_LEAST_ROWS;
use crate::int8::{IntMatrix, fits_int32};
use crate::table::{Kernel, Layer, PreparedLinear};
use crate::weight::{Codes, KernelError, QuantizedWeight, Scheme, bytes_of};

/// The code of a row's largest magnitude.
pub const LEVELS: f64 = 127.0;

/// What integer sums are scaled by, besides the magnitudes: 1 / 127², but for bitsandbytes' last digit, which is 1.8e-5 too
/// much.
pub(crate) const SUM_SCALE: f64 = 6.200_124e-5;

/// Rows as codes.
#[derive(Debug)]
pub struct Rows {
    /// i8 [M, K].
    pub codes: Tensor,
    /// f32 [M, 1]: x ≈ code · absmax / 127.
    pub absmax: Tensor,
    /// i64: the columns that hold outliers, whose codes are 0. `None`: there are none.
    pub outliers: Option<Tensor>,
}

/// Quantizes rows, [M, K] in floating point, after rounding them to f16. Values of at least `threshold` in magnitude
/// are outliers; with a threshold of 0 nothing is one. Rows of zeros have codes of 0.
pub fn quantize_rows(x: &Tensor, threshold: f64) -> Result<Rows, TchError> {
    let mut x = x.f_to_kind(Kind::Half)?;
    let mut outliers = None;
    if threshold > 0.0 {
        let is_outlier = x.f_abs()?.f_ge(threshold)?;
        let columns = is_outlier.f_any_dim(0, false)?.f_nonzero()?.f_view([-1])?;
        if columns.numel() > 0 {
            x = x.f_masked_fill(&is_outlier, 0.0)?;
            outliers = Some(columns);
        }
    }
    let absmax = x.f_abs()?.f_amax([-1].as_slice(), true)?.f_to_kind(Kind::Float)?;
    // Not 127 / absmax: that is how Python divides a number by a tensor, and it rounds differently.
    let factor = absmax.f_reciprocal()?.f_mul_scalar(LEVELS)?;
    // 0 · ∞ where a row is zero.
    let codes = x.f_to_kind(Kind::Float)?.f_mul_(&factor)?.f_round()?.f_nan_to_num(0.0, None, None)?;
    let mut codes = codes.f_to_kind(Kind::Int8)?;
    if let Some(columns) = &outliers {
        let _ = codes.f_index_fill_(1, columns, 0)?;
    }
    Ok(Rows { codes, absmax, outliers })
}

/// `columns` of a weight in f32: codes i8 [N, K] with largest magnitudes f32 `[N]`, to [N, columns].
pub(crate) fn dequantize_columns(
    codes: &Tensor,
    absmax: &Tensor,
    columns: &Tensor,
) -> Result<Tensor, TchError> {
    let codes = codes.f_index_select(1, columns)?.f_to_kind(Kind::Float)?;
    codes.f_mul(&absmax.f_unsqueeze(1)?)?.f_mul_scalar(1.0 / LEVELS)
}

/// The exact integer product by [`crate::int8`]'s operation, and outlier columns beside it.
#[derive(Debug)]
pub struct LlmInt8;

impl Kernel for LlmInt8 {
    fn name(&self) -> &'static str {
        "llm-int8-int-mm"
    }

    fn supports(&self, layer: &Layer) -> bool {
        layer.scheme == Scheme::LlmInt8 && fits_int32(layer)
    }

    fn prepare(
        &self,
        weight: QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::LlmInt8 { weight: codes, absmax, threshold } = weight.codes() else {
            unreachable!("supports() admits LLM.int8() only");
        };
        Ok(Box::new(PreparedLlmInt8 {
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
struct PreparedLlmInt8 {
    weight: IntMatrix,
    /// f32 `[N]`.
    absmax: Tensor,
    threshold: f64,
    /// `[N]` in the activations' type.
    bias: Option<Tensor>,
}

impl PreparedLlmInt8 {
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

impl PreparedLinear for PreparedLlmInt8 {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        self.weight.bytes() + bytes_of([&self.absmax].into_iter().chain(&self.bias))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn integers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.to_kind(Kind::Int64).view([-1])).unwrap()
    }

    #[test]
    fn an_outlier_takes_its_column_out_of_every_row_and_out_of_the_scales() {
        let x = Tensor::from_slice(&[1.0_f32, 8.0, -2.0, 4.0, 1.0, 0.5]).view([2, 3]);
        let rows = quantize_rows(&x, 6.0).unwrap();
        assert_eq!(integers(rows.outliers.as_ref().unwrap()), [1]);
        // The second row's 1 is not an outlier, but its column is; 4 is what its scale is made of.
        assert_eq!(integers(&rows.codes), [64, 0, -127, 127, 0, 16]);
        assert_eq!(integers(&rows.absmax), [2, 4]);
        let rows = quantize_rows(&x, 0.0).unwrap();
        assert!(rows.outliers.is_none());
        assert_eq!(integers(&rows.absmax), [8, 4]);
    }

    #[test]
    fn the_scale_of_a_row_counts_what_only_shares_a_column_with_an_outlier() {
        let x = Tensor::from_slice(&[9.0_f32, 1.0, 5.0, 1.0]).view([2, 2]);
        let rows = quantize_rows(&x, 6.0).unwrap();
        assert_eq!(integers(&rows.absmax), [1, 5]);
        assert_eq!(integers(&rows.codes), [0, 127, 0, 25]);
    }

    #[test]
    fn rows_of_zeros_have_codes_of_zero() {
        let rows = quantize_rows(&Tensor::zeros([2, 4], (Kind::BFloat16, tch::Device::Cpu)), 6.0).unwrap();
        assert_eq!(integers(&rows.codes), [0; 8]);
    }
}
