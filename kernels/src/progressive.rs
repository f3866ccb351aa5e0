//! Progressive 4-bit weights: int4 codes that an integer scale and zero of their group make int8 weights,
//! which have one scale an output channel. The sums of a product are then exact int32, as with int8 weights,
//! at 4.13 bits a weight (groups of 128). After QServe's progressive group quantization (Lin et al., 2024,
//! arXiv 2405.04532).
//!
//! ```text
//! weight[n, k] = channel_scale[n] · w8[n, k]
//! w8[n, k]     = (code[n, k] - group_zero[n, g]) · group_scale[n, g],   g = k / group
//! ```
//!
//! Codes are from -8 to 7. Every code of every group must give an int8: a property of the group's scale and
//! zero alone ([`beyond_int8`]), so that no kernel has to saturate.

use tch::{Kind, TchError, Tensor};

/// The lowest code.
pub const LOWEST: i64 = -8;
/// The highest code.
pub const HIGHEST: i64 = 7;
/// The largest scale of a group with which 16 codes fit into int8.
pub const LARGEST_SCALE: i64 = 16;
/// The largest magnitude that a group can have whatever its sign: what the first level is scaled to.
/// 7 · [`LARGEST_SCALE`].
pub const LEVELS: i64 = 112;

/// How many groups have a scale below 1, a zero that is no code, or one code that leaves int8.
/// Both i8 of one shape.
pub fn beyond_int8(group_scale: &Tensor, group_zero: &Tensor) -> Result<i64, TchError> {
    let (scale, zero) = (group_scale.f_to_kind(Kind::Int)?, group_zero.f_to_kind(Kind::Int)?);
    let lowest = (zero.f_neg()? + LOWEST) * &scale;
    let highest = (zero.f_neg()? + HIGHEST) * &scale;
    let fits = scale
        .f_ge(1)?
        .f_logical_and(&zero.f_ge(LOWEST)?)?
        .f_logical_and(&zero.f_le(HIGHEST)?)?
        .f_logical_and(&lowest.f_ge(i64::from(i8::MIN))?)?
        .f_logical_and(&highest.f_le(i64::from(i8::MAX))?)?;
    i64::try_from(fits.f_logical_not()?.f_sum(Kind::Int64)?)
}

/// The int8 weights, [N, K], of codes i8 [N, K] under scales and zeros i8 [N, K/group].
pub fn expand(codes: &Tensor, group_scale: &Tensor, group_zero: &Tensor) -> Result<Tensor, TchError> {
    let (out_features, in_features) = codes.size2()?;
    let groups = group_scale.size2()?.1;
    let grouped = codes.f_view([out_features, groups, in_features / groups])?;
    let weight = grouped.f_sub(&group_zero.f_unsqueeze(-1)?)?.f_mul(&group_scale.f_unsqueeze(-1)?)?;
    weight.f_view([out_features, in_features])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn column(values: &[i8]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1])
    }

    #[test]
    fn exactly_the_pairs_that_keep_every_code_in_int8_fit() {
        for scale in i8::MIN..=i8::MAX {
            for zero in i8::MIN..=i8::MAX {
                let fits = scale >= 1
                    && (-8..=7).contains(&zero)
                    && (-8..=7)
                        .all(|code: i32| i8::try_from((code - i32::from(zero)) * i32::from(scale)).is_ok());
                let found = beyond_int8(&column(&[scale]), &column(&[zero])).unwrap();
                assert_eq!(found, i64::from(!fits), "{scale} {zero}");
                assert!(!fits || i64::from(scale) <= LARGEST_SCALE);
            }
        }
        // The first level's range is reached on both sides.
        assert_eq!(beyond_int8(&column(&[16]), &column(&[0])).unwrap(), 0);
        assert_eq!(LEVELS, HIGHEST * LARGEST_SCALE);
    }

    #[test]
    fn groups_have_their_own_scale_and_zero() {
        let codes = Tensor::from_slice(&[-8_i8, 7, 0, 1, -8, 7, 3, -1]).view([2, 4]);
        let scale = Tensor::from_slice(&[16_i8, 1, 2, 3]).view([2, 2]);
        let zero = Tensor::from_slice(&[0_i8, -1, 7, 0]).view([2, 2]);
        let weight = expand(&codes, &scale, &zero).unwrap();
        let expected = Tensor::from_slice(&[-128_i8, 112, 1, 2, -30, 0, 9, -3]).view([2, 4]);
        assert!(weight.equal(&expected));
    }
}
