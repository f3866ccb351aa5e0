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

pub(crate) mod cuda;
pub(crate) mod fused;
pub(crate) mod int_mm;
mod rows;

pub(crate) use cuda::CudaRows;
pub(crate) use rows::Rows as CpuRows;

use tch::{Kind, TchError, Tensor};

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
    dequantize(&codes.f_index_select(1, columns)?, absmax)
}

/// Codes i8 [N, K] with largest magnitudes f32 `[N]`, in f32.
pub(crate) fn dequantize(codes: &Tensor, absmax: &Tensor) -> Result<Tensor, TchError> {
    let codes = codes.f_to_kind(Kind::Float)?;
    codes.f_mul(&absmax.f_unsqueeze(1)?)?.f_mul_scalar(1.0 / LEVELS)
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
