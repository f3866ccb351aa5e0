//! From second moments to the triangle that GPTQ works with: U, upper, with UᵀU = (H + damping)⁻¹.

use qpipe_nodes::kinds::{ColumnOrder, GptqProfile};
use serde_json::{Value, json};
use tch::{Kind, TchError, Tensor};

use super::order;
use crate::finite::is_finite;
use crate::quant::method::{DAMPING, FALLBACK};

/// What is added to the damping where a factorization fails, until the sum reaches 1: GPTQModel's step.
const DAMPING_STEP: f64 = 0.01;

/// How H becomes a [`Factor`].
#[derive(Clone, Copy, Debug)]
pub(in crate::quant) struct Recipe {
    /// Whose order of operations.
    pub(in crate::quant) profile: GptqProfile,
    /// In which order columns are rounded.
    pub(in crate::quant) order: ColumnOrder,
    /// Input channels that share a scale.
    pub(in crate::quant) group: Option<i64>,
    /// Added to the diagonal, as a share of its mean.
    pub(in crate::quant) damping: f64,
}

/// The triangle of one input, and how it came about. All layers that share the input share it.
#[derive(Debug)]
pub(in crate::quant) struct Factor {
    /// f32 [K, K], in the order of rounding.
    pub(super) upper: Tensor,
    /// i64 `[K]`: the columns in the order of rounding; `None`: as they stand.
    pub(super) order: Option<Tensor>,
    /// bool `[K]`: channels that are 0 for every token, as they stand; `None`: there are none.
    pub(super) dead: Option<Tensor>,
    /// With which damping the factorization succeeded.
    damping: f64,
    /// Whether that took float64.
    is_double: bool,
    /// Nothing helped: U is the identity, and weights are rounded to nearest.
    is_identity: bool,
}

impl Factor {
    /// Of H, f32 [K, K]: 2/n times the sum of x xᵀ over the tokens.
    ///
    /// Factorized in float32 as the references do; where that fails in float64, which raises no damping; then with
    /// more damping; in the end weights are rounded to nearest.
    pub(in crate::quant) fn of(hessian: Tensor, recipe: Recipe) -> Result<Self, TchError> {
        let is_dead = hessian.f_diag(0)?.f_eq(0.0)?;
        let dead = bool::try_from(is_dead.f_any()?)?.then_some(is_dead);
        let fill = |hessian: &Tensor| -> Result<(), TchError> {
            if let Some(dead) = &dead {
                let mut diagonal = hessian.f_diagonal(0, 0, 1)?;
                let _ = diagonal.f_masked_fill_(dead, 1.0)?;
            }
            Ok(())
        };
        // A dead channel counts as 1 when GPTQModel orders channels, as 0 when llm-compressor does.
        if recipe.profile == GptqProfile::Gptqmodel {
            fill(&hessian)?;
        }
        let order = order::of(&hessian.f_diag(0)?, recipe.order, recipe.group)?;
        if recipe.profile == GptqProfile::Llmc {
            fill(&hessian)?;
        }
        let hessian = match &order {
            Some(order) => hessian.f_index_select(0, order)?.f_index_select(1, order)?,
            None => hessian,
        };
        let mean = hessian.f_diag(0)?.f_mean(Kind::Float)?;
        let made = |upper: Tensor, damping: f64, is_double: bool| Self {
            upper,
            order: order.as_ref().map(Tensor::shallow_clone),
            dead: dead.as_ref().map(Tensor::shallow_clone),
            damping,
            is_double,
            is_identity: false,
        };
        let mut damping = recipe.damping;
        if let Some(upper) = factorize(&hessian, &mean, damping, Kind::Float)? {
            return Ok(made(upper, damping, false));
        }
        while damping < 1.0 {
            if let Some(upper) = factorize(&hessian, &mean, damping, Kind::Double)? {
                return Ok(made(upper, damping, true));
            }
            damping += DAMPING_STEP;
        }
        let identity = Tensor::f_eye(hessian.size()[0], (Kind::Float, hessian.device()))?;
        Ok(Self { is_identity: true, ..made(identity, damping, true) })
    }

    /// What is kept of a layer that was rounded with it at the `loss` given, its second moments being of `tokens` tokens.
    pub(in crate::quant) fn note(&self, loss: f64, tokens: u64) -> Value {
        let mut note = json!({"loss": loss, "tokens": tokens});
        for (key, value) in self.notes() {
            note[key] = value;
        }
        note
    }

    /// What is worth saying of it.
    fn notes(&self) -> Vec<(&'static str, Value)> {
        let mut notes = Vec::new();
        if self.is_identity {
            notes.push((FALLBACK, json!("the second moments could not be factorized at any damping")));
        } else {
            notes.push((DAMPING, json!((self.damping * 1e6).round() / 1e6)));
        }
        if self.is_double && !self.is_identity {
            notes.push(("factorized", json!("in float64, after float32 failed")));
        }
        if let Some(dead) = &self.dead {
            notes.push(("dead_channels", json!(i64::try_from(dead.sum(Kind::Int64)).unwrap_or_default())));
        }
        notes
    }
}

/// U of `hessian` with `damping` times `mean` added to its diagonal, computed in `kind`, in float32; `None` where it
/// is not positive definite in that type. The operations, and their order, are those of both references.
fn factorize(hessian: &Tensor, mean: &Tensor, damping: f64, kind: Kind) -> Result<Option<Tensor>, TchError> {
    let damped = hessian.f_to_dtype(kind, false, true)?;
    let _ = damped.f_diagonal(0, 0, 1)?.f_add_(&(mean.f_to_kind(kind)? * damping))?;
    let (lower, info) = Tensor::f_linalg_cholesky_ex(&damped, false, false)?;
    if info.f_int64_value(&[])? != 0 {
        return Ok(None);
    }
    drop(damped);
    let inverse = lower.f_cholesky_inverse(false)?;
    drop(lower);
    let (upper, info) = Tensor::f_linalg_cholesky_ex(&inverse, true, false)?;
    if info.f_int64_value(&[])? != 0 {
        return Ok(None);
    }
    let upper = upper.f_to_kind(Kind::Float)?;
    // Far outside float32's range a factorization may succeed and be of no use.
    let is_usable = is_finite(&upper)? && bool::try_from(upper.f_diag(0)?.f_gt(0.0)?.f_all()?)?;
    Ok(is_usable.then_some(upper))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tch::Device;

    use super::*;

    const RECIPE: Recipe =
        Recipe { profile: GptqProfile::Llmc, order: ColumnOrder::None, group: None, damping: 0.01 };

    fn moments(tokens: i64, channels: i64) -> Tensor {
        let _random = crate::torch::seeded(31);
        let x = Tensor::randn([tokens, channels], (Kind::Float, Device::Cpu));
        x.tr().matmul(&x) * (2.0 / tokens as f64)
    }

    #[test]
    fn the_triangle_is_that_of_the_damped_inverse() {
        let hessian = moments(300, 40);
        let damped = &hessian
            + Tensor::eye(40, (Kind::Float, Device::Cpu)) * (hessian.diag(0).mean(Kind::Float) * 0.01);
        let factor = Factor::of(hessian, RECIPE).unwrap();
        let product = factor.upper.tr().matmul(&factor.upper).matmul(&damped);
        let distance = (product - Tensor::eye(40, (Kind::Float, Device::Cpu))).abs().max();
        assert!(f64::try_from(distance).unwrap() < 1e-4);
        assert!(factor.upper.equal(&factor.upper.triu(0)));
        assert_eq!(factor.notes(), [("damping", json!(0.01))]);
    }

    #[test]
    fn too_few_tokens_without_damping_are_saved_by_more_of_it() {
        // Rank 8 of 64: singular without damping, in both types.
        let recipe = Recipe { damping: 0.0, ..RECIPE };
        let factor = Factor::of(moments(8, 64), recipe).unwrap();
        assert!(!factor.is_identity);
        assert!(factor.damping > 0.0 || factor.is_double);
        let notes = factor.notes();
        assert!(notes.contains(&("factorized", json!("in float64, after float32 failed"))), "{notes:?}");
    }

    #[test]
    fn ill_conditioned_moments_are_factorized_in_float64_with_the_damping_asked_for() {
        // Whole numbers, whose sums are exact: of rank 64, and nothing below 0 by rounding.
        let x = Tensor::randint_low(-9, 10, [64, 512], (Kind::Float, Device::Cpu));
        let recipe = Recipe { damping: 1e-9, ..RECIPE };
        let factor = Factor::of(x.tr().matmul(&x) * (2.0 / 64.0), recipe).unwrap();
        assert!(factor.is_double);
        assert_eq!(factor.damping, 1e-9);
    }

    #[test]
    fn a_negative_diagonal_falls_back_to_rounding_and_says_so() {
        let hessian = Tensor::eye(4, (Kind::Float, Device::Cpu)) * -1.0;
        let factor = Factor::of(hessian, RECIPE).unwrap();
        assert!(factor.upper.equal(&Tensor::eye(4, (Kind::Float, Device::Cpu))));
        assert_eq!(factor.notes()[0].0, FALLBACK);
    }

    #[test]
    fn dead_channels_are_found_whatever_the_order() {
        let hessian = moments(100, 8);
        for channel in [1, 6] {
            let _ = hessian.get(channel).fill_(0.0);
            let _ = hessian.select(1, channel).fill_(0.0);
        }
        for (profile, order, first_dead) in
            [(GptqProfile::Llmc, ColumnOrder::Weight, 6), (GptqProfile::Gptqmodel, ColumnOrder::DescAct, 6)]
        {
            let recipe = Recipe { profile, order, ..RECIPE };
            let factor = Factor::of(hessian.copy(), recipe).unwrap();
            let dead = factor.dead.as_ref().unwrap();
            assert_eq!(dead.sum(Kind::Int64).int64_value(&[]), 2);
            let order = factor.order.as_ref().unwrap();
            // Quieter than every live channel, also where they count as 1.
            assert_eq!(order.int64_value(&[first_dead]), 1);
            assert_eq!(factor.notes()[1], ("dead_channels", json!(2)));
        }
    }
}
