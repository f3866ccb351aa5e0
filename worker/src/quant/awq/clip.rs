//! The search for ranges: a group whose largest weights are clipped has finer steps for the others.

use tch::{Kind, TchError, Tensor};

use super::grid::Grid;

/// Ranges are tried from the whole downward in twentieths.
const STEPS: u32 = 20;
/// So many of them: to 0.55 of the whole.
const TRIED: u32 = 10;

/// `weight`, f32 [N, K], with each group's magnitudes limited to what leaves the smallest squared error of that group's
/// part of the output; `moments`, f32 [K, K], is the sum of x xᵀ of the layer's input. AutoAWQ's `_search_best_clip`,
/// with all tokens in place of a sample of 512.
pub(super) fn clipped(weight: &Tensor, moments: &Tensor, grid: Grid) -> Result<Tensor, TchError> {
    let (out_features, in_features) = weight.size2()?;
    let count = in_features / grid.group;
    let blocks = diagonal_blocks(moments, grid.group)?;
    let groups = weight.f_view([out_features, count, grid.group])?;
    let largest = groups.f_abs()?.f_amax([-1].as_slice(), true)?;
    let mut best_limit = largest.shallow_clone();
    let mut best_error: Option<Tensor> = None;
    for step in 0..TRIED {
        let limit = &largest * (1.0 - f64::from(step) / f64::from(STEPS));
        let limited = limit_to(&groups, &limit)?.f_view([out_features, in_features])?;
        let difference = (grid.value(&limited)? - weight).f_view([out_features, count, grid.group])?;
        // [G, N, g] · [G, g, g]
        let difference = difference.f_transpose(0, 1)?;
        let error = (difference.f_bmm(&blocks)? * difference).f_sum_dim_intlist(
            [-1].as_slice(),
            true,
            Kind::Float,
        )?;
        let error = error.f_transpose(0, 1)?;
        best_error = Some(match best_error {
            None => error,
            Some(best) => {
                let is_better = error.f_lt_tensor(&best)?;
                best_limit = limit.f_where_self(&is_better, &best_limit)?;
                error.f_minimum(&best)?
            }
        });
    }
    limit_to(&groups, &best_limit)?.f_view([out_features, in_features])
}

/// `groups` [N, G, g] within ±`limit` [N, G, 1].
fn limit_to(groups: &Tensor, limit: &Tensor) -> Result<Tensor, TchError> {
    groups.f_minimum(limit)?.f_maximum(&limit.f_neg()?)
}

/// The blocks [G, g, g] along the diagonal of `moments` [K, K].
fn diagonal_blocks(moments: &Tensor, group: i64) -> Result<Tensor, TchError> {
    let count = moments.size2()?.0 / group;
    let blocks = moments.f_view([count, group, count, group])?;
    blocks.f_diagonal(0, 0, 2)?.f_permute([2, 0, 1])?.f_contiguous()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tch::Device;

    use super::*;

    const GRID: Grid = Grid { group: 32, symmetric: false, kind: None };

    #[test]
    fn clipping_lowers_the_error_of_every_group_and_never_raises_a_magnitude() {
        let _guard = tch::no_grad_guard();
        let _random = crate::torch::seeded(21);
        let x = Tensor::randn([300, 64], (Kind::Float, Device::Cpu));
        let weight = Tensor::randn([40, 64], (Kind::Float, Device::Cpu));
        let limited = clipped(&weight, &x.tr().matmul(&x), GRID).unwrap();
        let above = (limited.abs() - weight.abs()).max();
        assert!(f64::try_from(above).unwrap() <= 0.0);
        assert!(!limited.equal(&weight));
        for group in 0..2 {
            let part = |tensor: &Tensor| tensor.narrow(1, 32 * group, 32);
            let error = |weights: &Tensor| {
                let difference = part(&GRID.value(weights).unwrap()) - part(&weight);
                part(&x).matmul(&difference.tr()).square().sum_dim_intlist([0].as_slice(), false, Kind::Float)
            };
            let worse = error(&limited).gt_tensor(&(error(&weight) * (1.0 + 1e-4)));
            assert_eq!(worse.sum(Kind::Int64).int64_value(&[]), 0);
        }
    }

    #[test]
    fn a_weight_of_zeros_stays() {
        let weight = Tensor::zeros([2, 32], (Kind::Float, Device::Cpu));
        let moments = Tensor::eye(32, (Kind::Float, Device::Cpu));
        assert!(clipped(&weight, &moments, GRID).unwrap().equal(&weight));
    }
}
