//! Symmetric rounding to few bits, as compressed-tensors 0.19 does it (`calculate_qparams` and
//! `_quantize` of its `quantization` package): for weights when they are quantized, for activations at run
//! time. Every operation runs, and rounds, in the type of the values; doing the division in f32 instead
//! changes one bf16 int8 code in thirteen.

use tch::{Kind, Tensor};

/// Scales of rows: `x` [..., K] to [..., 1] in `x`'s type. The largest magnitude divided by half the range of
/// `bits` bits (127.5, 7.5); a row of zeros gets the type's machine epsilon.
pub fn scales(x: &Tensor, bits: u32) -> Tensor {
    let largest = x.abs().amax([-1].as_slice(), true);
    // A tensor, not a number: CUDA multiplies by the reciprocal of a number, which rounds differently.
    let half_range = largest.full_like(f64::from((1_u32 << bits) - 1) / 2.0);
    let scale = largest / half_range;
    scale.masked_fill(&scale.eq(0.0), epsilon(x.kind()))
}

/// Codes of `x` [..., K] under `scale` (same type, broadcast): i8, x / scale clamped to the range of `bits`
/// bits and rounded half to even.
pub fn codes(x: &Tensor, scale: &Tensor, bits: u32) -> Tensor {
    let half = 1_i64 << (bits - 1);
    let mut scaled = x / scale;
    let _ = scaled.clamp_(-half, half - 1).round_();
    scaled.to_kind(Kind::Int8)
}

/// The distance from 1 to the next larger number of a floating-point type.
pub(crate) fn epsilon(kind: Kind) -> f64 {
    match kind {
        Kind::BFloat16 => 2_f64.powi(-7),
        Kind::Half => 2_f64.powi(-10),
        Kind::Double => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integers(tensor: &Tensor) -> Vec<i64> {
        (0..tensor.numel() as i64).map(|i| tensor.int64_value(&[i])).collect()
    }

    #[test]
    fn the_largest_magnitude_is_half_a_step_beyond_the_last_code() {
        let x = Tensor::from_slice(&[-1.0_f32, 0.25, 0.0, 1.0]);
        let scale = scales(&x, 8);
        assert_eq!(scale.double_value(&[0]) as f32, 1.0 / 127.5);
        // 1 / (1 / 127.5) is 127.49999 in f32.
        assert_eq!(integers(&codes(&x, &scale, 8)), [-127, 32, 0, 127]);
    }

    #[test]
    fn halves_go_to_the_even_code() {
        let x = Tensor::from_slice(&[0.5_f32, 1.5, 2.5, -0.5, -1.5, 7.5, -9.0]);
        let one = Tensor::from_slice(&[1.0_f32]);
        assert_eq!(integers(&codes(&x, &one, 4)), [0, 2, 2, 0, -2, 7, -8]);
    }

    #[test]
    fn a_row_of_zeros_has_the_epsilon_of_its_type() {
        for (kind, epsilon) in
            [(Kind::Float, 2_f64.powi(-23)), (Kind::BFloat16, 2_f64.powi(-7)), (Kind::Half, 2_f64.powi(-10))]
        {
            let x = Tensor::zeros([2, 3], (kind, tch::Device::Cpu));
            let scale = scales(&x, 8);
            assert_eq!(scale.size(), [2, 1]);
            assert_eq!(scale.double_value(&[1, 0]), epsilon);
            assert_eq!(codes(&x, &scale, 8).abs().max().int64_value(&[]), 0);
        }
    }

    #[test]
    fn bf16_rounds_at_every_step() {
        // 0.3 in bf16 is 0.30078125; /127.5 rounds to 0.002349853515625; x/scale = 64.03.. rounds to 64.
        let x = Tensor::from_slice(&[0.3_f32, 0.151]).to_kind(Kind::BFloat16);
        let scale = scales(&x, 8);
        assert_eq!(scale.double_value(&[0]), 0.002_365_112_304_687_5);
        assert_eq!(integers(&codes(&x, &scale, 8)), [127, 64]);
    }
}
