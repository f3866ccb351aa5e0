//! GPTQModel's scales and zero points (`Quantizer.find_params` of its `quantization/quantizer.py`, 7.3.4), in float32.

use tch::{Kind, TchError, Tensor};

/// Of the rows of `weights`, f32 [N, g], for codes of `bits` bits from 0: scale and zero point, f32 [N, 1] each. The
/// range holds 0. A symmetric one reaches as far to both sides, but not below 0 where no weight does.
pub(super) fn parameters(weights: &Tensor, bits: u32, symmetric: bool) -> Result<(Tensor, Tensor), TchError> {
    let mut least = weights.f_amin([1].as_slice(), true)?.f_clamp_max(0.0)?;
    let mut greatest = weights.f_amax([1].as_slice(), true)?.f_clamp_min(0.0)?;
    if symmetric {
        greatest = least.f_abs()?.f_maximum(&greatest)?;
        least = greatest.f_neg()?.f_where_self(&least.f_lt(0.0)?, &least)?;
    }
    let is_empty = least.f_eq(0.0)?.f_logical_and(&greatest.f_eq(0.0)?)?;
    least = least.f_masked_fill(&is_empty, -1.0)?;
    greatest = greatest.f_masked_fill(&is_empty, 1.0)?;
    let steps = f64::from((1_u32 << bits) - 1);
    // A tensor, not a number: CUDA multiplies by the reciprocal of a number, which rounds differently.
    let scale = greatest.f_sub(&least)?.f_div(&greatest.f_full_like(steps)?)?;
    let zero = if symmetric {
        scale.f_full_like((steps + 1.0) / 2.0)?
    } else {
        least.f_neg()?.f_div(&scale)?.f_round()?
    };
    Ok((scale.f_to_kind(Kind::Float)?, zero))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn of(weights: &[f32], bits: u32, symmetric: bool) -> (f32, f32) {
        let (scale, zero) = parameters(&Tensor::from_slice(weights).view([1, -1]), bits, symmetric).unwrap();
        (scale.double_value(&[0, 0]) as f32, zero.double_value(&[0, 0]) as f32)
    }

    #[test]
    fn symmetric_ranges_reach_as_far_to_both_sides() {
        assert_eq!(of(&[-1.5, 0.5], 4, true), (3.0 / 15.0, 8.0));
        assert_eq!(of(&[-0.5, 1.5], 4, true), (3.0 / 15.0, 8.0));
        assert_eq!(of(&[-1.0, 2.0], 8, true), (4.0 / 255.0, 128.0));
    }

    #[test]
    fn without_a_negative_weight_half_of_the_codes_clip() {
        // So does the reference.
        assert_eq!(of(&[0.5, 1.5], 4, true), (1.5 / 15.0, 8.0));
    }

    #[test]
    fn zero_points_are_the_code_of_zero() {
        assert_eq!(of(&[-1.0, 2.0], 4, false), (3.0 / 15.0, 5.0));
        assert_eq!(of(&[1.0, 3.0], 2, false), (1.0, 0.0));
        assert_eq!(of(&[-3.0, -1.0], 2, false), (1.0, 3.0));
    }

    #[test]
    fn a_group_of_zeros_has_a_range() {
        assert_eq!(of(&[0.0, 0.0], 4, true), (2.0 / 15.0, 8.0));
        assert_eq!(of(&[0.0, 0.0], 2, false), (2.0 / 3.0, 2.0));
    }
}
