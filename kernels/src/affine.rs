//! Rounding to few bits with a zero point, as compressed-tensors 0.19 does it (`calculate_qparams` of its
//! `quantization` package): scales and zero points of weights. Every operation runs, and rounds, in the type of the
//! values.

use tch::{Kind, Tensor};

use crate::symmetric::epsilon;

/// Scales and zero points of rows: `x` [..., K] to two of [..., 1], the scales in `x`'s type, the zero points u8. A
/// row's range, widened to hold 0, is divided by the steps of `bits` bits; a row without a range gets the type's
/// machine epsilon. x ≈ (code - zero) · scale with codes from 0.
pub fn scales_and_zeros(x: &Tensor, bits: u32) -> (Tensor, Tensor) {
    let (least, greatest) = (x.amin([-1].as_slice(), true), x.amax([-1].as_slice(), true));
    let (least, greatest) = (least.clamp_max(0.0), greatest.clamp_min(0.0));
    let half = f64::from(1_u32 << (bits - 1));
    // Tensors, not numbers: CUDA multiplies by the reciprocal of a number, which rounds differently.
    let scale = (&greatest - &least) / greatest.full_like(2.0 * half - 1.0);
    // In the codes' signed range: that is where the reference rounds.
    let zero = (least.full_like(-half) - least / &scale).clamp(-half, half - 1.0);
    // 0 / 0 where there is no range: the reference's cast makes 0 of it.
    let zero = zero.nan_to_num(0.0, 0.0, 0.0).round();
    let scale = scale.masked_fill(&scale.eq(0.0), epsilon(x.kind()));
    (scale, (zero.to_kind(Kind::Float) + half).to_kind(Kind::Uint8))
}
