//! SmoothQuant's scales: what an input channel is divided by in the norm before it and multiplied by in the weights.
//! Pure: statistics and weights in, scales out, to the bit those of the reference that the rule is named after.

use qpipe_nodes::kinds::ScaleRule;
use tch::{Kind, TchError, Tensor};

/// No scale is smaller.
const LEAST_SCALE: f64 = 1e-5;

/// The scales, `[K]`, f32 (`mit`: in the weights' type), of an input whose channels were between `extremes`, the
/// smallest and the largest value of each, f32 `[K]`, and that `weights`, [N, K] of one type each, share.
///
/// `llmc` is llm-compressor 0.14's `SmoothQuantModifier`: with r = largest - smallest and w = twice the largest
/// magnitude of the weights' column, s = r^alpha / w^(1 - alpha) in the weights' type; r where w is 0. `mit` is the
/// authors' `smooth_lm`: with a the largest magnitude and w likewise but at least 1e-5, s = a^alpha / w^(1 - alpha) in
/// the weights' type. Either way at least 1e-5, at which point llm-compressor's type becomes f32. A channel that
/// never moved gets that least scale from both: its weights leave the range of those that matter.
pub fn scales(
    rule: ScaleRule,
    extremes: (&Tensor, &Tensor),
    weights: &[&Tensor],
    alpha: f64,
) -> Result<Tensor, TchError> {
    let kind = weights[0].kind();
    let columns: Vec<Tensor> = weights
        .iter()
        .map(|weight| weight.f_abs()?.f_amax([0].as_slice(), true))
        .collect::<Result<_, _>>()?;
    let largest = Tensor::f_cat(&columns, 0)?.f_amax([0].as_slice(), false)?;
    let (min, max) = (extremes.0.f_to_kind(kind)?, extremes.1.f_to_kind(kind)?);
    match rule {
        ScaleRule::Llmc => {
            let (range, largest) = (max - min, largest * 2.0);
            let scales = range.f_pow_tensor_scalar(alpha)? / largest.f_pow_tensor_scalar(1.0 - alpha)?;
            let scales = scales.f_where_self(&largest.f_gt(0.0)?, &range)?;
            scales.f_to_kind(Kind::Float)?.f_clamp_min(LEAST_SCALE)
        }
        ScaleRule::Mit => {
            let magnitude = max.f_abs()?.f_maximum(&min.f_abs()?)?;
            let largest = largest.f_clamp_min(LEAST_SCALE)?;
            let scales = magnitude.f_pow_tensor_scalar(alpha)? / largest.f_pow_tensor_scalar(1.0 - alpha)?;
            scales.f_clamp_min(LEAST_SCALE)
        }
    }
}

/// `weight`, [N, K], for an input that was divided by `scales`: in its own type.
pub fn smooth_weight(weight: &Tensor, scales: &Tensor) -> Result<Tensor, TchError> {
    (weight * scales.f_view([1, -1])?).f_to_kind(weight.kind())
}

/// The norm's weight, `[K]`, that divides its output by `scales`: in its own type.
pub fn smooth_norm(norm: &Tensor, scales: &Tensor) -> Result<Tensor, TchError> {
    (norm / scales).f_to_kind(norm.kind())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tch::Device;

    use super::*;

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values)
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.to_kind(Kind::Float)).unwrap()
    }

    #[test]
    fn llmc_has_ranges_and_mit_magnitudes() {
        let (min, max) = (row(&[-1.0, -8.0]), row(&[3.0, 1.0]));
        let weights = [row(&[0.5, -1.0]).view([1, 2]), row(&[0.25, 2.0]).view([1, 2])];
        let of =
            |rule, alpha| floats(&scales(rule, (&min, &max), &[&weights[0], &weights[1]], alpha).unwrap());
        // sqrt(4 / 1), sqrt(9 / 4)
        assert_eq!(of(ScaleRule::Llmc, 0.5), [2.0, 1.5]);
        // sqrt(3 / 0.5), sqrt(8 / 2)
        assert_eq!(of(ScaleRule::Mit, 0.5), [6_f32.sqrt(), 2.0]);
        assert_eq!(of(ScaleRule::Llmc, 1.0), [4.0, 9.0]);
        assert_eq!(of(ScaleRule::Mit, 0.0), [2.0, 0.5]);
    }

    #[test]
    fn dead_channels_and_columns_of_zeros_have_finite_scales() {
        let (min, max) = (row(&[0.0, -1.0, 0.0]), row(&[0.0, 1.0, 0.0]));
        let weight = row(&[0.5, 0.0, 0.0]).view([1, 3]);
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let of = |rule| floats(&scales(rule, (&min, &max), &[&weight.to_kind(kind)], 0.5).unwrap());
            // Where the weight is 0, llm-compressor takes the range itself.
            assert_eq!(of(ScaleRule::Llmc), [1e-5, 2.0, 1e-5]);
            let mit = of(ScaleRule::Mit);
            assert!(mit.iter().all(|scale| scale.is_finite() && *scale > 0.0), "{mit:?}");
        }
    }

    #[test]
    fn the_product_stays_what_it_was() {
        let _guard = tch::no_grad_guard();
        let _random = crate::torch::seeded(5);
        let options = (Kind::Float, Device::Cpu);
        let (x, norm) = (Tensor::randn([9, 16], options) * 4.0, Tensor::rand([16], options) + 0.5);
        let weight = Tensor::randn([8, 16], options);
        let seen = &x * &norm;
        let extremes = (seen.amin([0].as_slice(), false), seen.amax([0].as_slice(), false));
        for rule in [ScaleRule::Llmc, ScaleRule::Mit] {
            let scales = scales(rule, (&extremes.0, &extremes.1), &[&weight], 0.7).unwrap();
            let smoothed = (&x * smooth_norm(&norm, &scales).unwrap())
                .matmul(&smooth_weight(&weight, &scales).unwrap().tr());
            let difference = (smoothed - seen.matmul(&weight.tr())).abs().max();
            assert!(f64::try_from(difference).unwrap() < 1e-4);
        }
    }
}
