//! Symmetric rounding of rows to int8, as torchao 0.18 does it on a CPU (`Int8Tensor.from_hp(x, PerRow())`: its
//! `choose_qparams_affine` and `quantize_affine`): for weights when they are quantized, for activations at run time.
//!
//! [`crate::symmetric`] divides in the type of the values; here the scale is found in that type, and codes are products
//! with its reciprocal in f32. In bf16, one code in thirteen differs.

use tch::{Kind, TchError, Tensor};

/// The smallest scale, of rows of zeros: the machine epsilon of f32, whatever the type.
const LEAST_SCALE: f64 = f32::EPSILON as f64;
/// Half of the range of 8 bits.
const HALF_RANGE: f64 = 127.5;

/// Scales of rows: `x` [..., K] to [..., 1] in f32, each of them a number of `x`'s type too.
///
/// # Errors
///
/// Only libtorch's.
pub fn scales(x: &Tensor) -> Result<Tensor, TchError> {
    let largest = x.f_abs()?.f_amax([-1].as_slice(), true)?;
    // A tensor, not a number: CUDA multiplies by the reciprocal of a number, which rounds differently.
    let scale = largest.f_div(&largest.f_full_like(HALF_RANGE)?)?;
    scale.f_clamp_min(LEAST_SCALE)?.f_to_kind(Kind::Float)
}

/// Codes of `x` [..., K] under `scale`, f32 [..., 1]: i8, x · (1 / scale) in f32, rounded half to even and clamped.
///
/// # Errors
///
/// Only libtorch's.
pub fn codes(x: &Tensor, scale: &Tensor) -> Result<Tensor, TchError> {
    let mut scaled = x.f_to_kind(Kind::Float)?.f_mul(&scale.f_reciprocal()?)?;
    let _ = scaled.f_round_()?.f_clamp_(i64::from(i8::MIN), i64::from(i8::MAX))?;
    scaled.f_to_kind(Kind::Int8)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::symmetric;

    #[test]
    fn a_row_of_zeros_has_the_epsilon_of_f32_in_every_type() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let x = Tensor::zeros([2, 3], (kind, tch::Device::Cpu));
            let scale = scales(&x).unwrap();
            assert_eq!((scale.kind(), scale.size()), (Kind::Float, vec![2, 1]));
            assert_eq!(scale.double_value(&[1, 0]), LEAST_SCALE);
            assert_eq!(codes(&x, &scale).unwrap().abs().max().int64_value(&[]), 0);
        }
    }

    #[test]
    fn a_scale_is_a_number_of_the_type_that_it_was_found_in() {
        tch::manual_seed(1);
        for kind in [Kind::BFloat16, Kind::Half] {
            let x = Tensor::randn([64, 32], (Kind::Float, tch::Device::Cpu)).to_kind(kind);
            let scale = scales(&x).unwrap();
            assert!(scale.to_kind(kind).to_kind(Kind::Float).equal(&scale));
            assert!(scale.equal(&symmetric::scales(&x, 8).to_kind(Kind::Float)));
        }
    }

    #[test]
    fn in_bf16_one_code_in_thirteen_is_not_that_of_a_division_in_bf16() {
        tch::manual_seed(2);
        let x = Tensor::randn([256, 1024], (Kind::Float, tch::Device::Cpu)).to_kind(Kind::BFloat16);
        let codes = codes(&x, &scales(&x).unwrap()).unwrap();
        let divided = symmetric::codes(&x, &symmetric::scales(&x, 8), 8);
        let share = codes.ne_tensor(&divided).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!((0.06..0.1).contains(&share), "{share}");
        assert_eq!((codes.to_kind(Kind::Int) - divided.to_kind(Kind::Int)).abs().max().int64_value(&[]), 1);
    }
}
