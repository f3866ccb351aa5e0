//! In which order columns are rounded. Ties keep the order of the columns, on every device.

use qpipe_nodes::kinds::ColumnOrder;
use tch::{TchError, Tensor};

/// The columns, i64 `[K]`, in the order of rounding, by the `diagonal` of the second moments, f32 `[K]`; `None`: as
/// they stand. `group` is what [`ColumnOrder::ActGroupAware`] keeps together: whole groups, then what is left.
pub(super) fn of(
    diagonal: &Tensor,
    order: ColumnOrder,
    group: Option<i64>,
) -> Result<Option<Tensor>, TchError> {
    match (order, group) {
        (ColumnOrder::Weight | ColumnOrder::DescAct, _) => Ok(Some(descending(diagonal, 0)?)),
        (ColumnOrder::ActGroupAware, Some(group)) => group_aware(diagonal, group).map(Some),
        (ColumnOrder::ActGroupAware, None) | (ColumnOrder::None, _) => Ok(None),
    }
}

/// Groups by their largest value, and in each its columns (Gafni et al., 2025, arXiv 2505.14638).
fn group_aware(diagonal: &Tensor, group: i64) -> Result<Tensor, TchError> {
    let columns = diagonal.size()[0];
    let groups = columns / group;
    let grouped = diagonal.f_narrow(0, 0, groups * group)?.f_view([groups, group])?;
    let inside = descending(&grouped, 1)?;
    let starts = Tensor::f_arange(groups, (tch::Kind::Int64, diagonal.device()))? * group;
    let columns_of_groups = inside.f_add(&starts.f_unsqueeze(-1)?)?;
    let largest = grouped.f_amax([1].as_slice(), false)?;
    let ordered = columns_of_groups.f_index_select(0, &descending(&largest, 0)?)?.f_view([-1])?;
    let rest = Tensor::f_arange_start(groups * group, columns, (tch::Kind::Int64, diagonal.device()))?;
    Tensor::f_cat(&[ordered, rest], 0)
}

fn descending(values: &Tensor, dim: i64) -> Result<Tensor, TchError> {
    Ok(values.f_sort_stable(true, dim, true)?.1)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn of_values(values: &[f32], order: ColumnOrder, group: Option<i64>) -> Option<Vec<i64>> {
        of(&Tensor::from_slice(values), order, group).unwrap().map(|order| Vec::try_from(order).unwrap())
    }

    #[test]
    fn the_largest_comes_first_and_ties_stay_in_place() {
        let values = [1.0, 3.0, 1.0, 2.0, 3.0];
        for order in [ColumnOrder::Weight, ColumnOrder::DescAct] {
            assert_eq!(of_values(&values, order, Some(2)), Some(vec![1, 4, 3, 0, 2]));
        }
        assert_eq!(of_values(&values, ColumnOrder::None, Some(2)), None);
    }

    #[test]
    fn groups_stay_together() {
        let values = [1.0, 2.0, 5.0, 4.0, 3.0, 2.0, 9.0];
        // 5 4 | 3 2 | 2 1 | and what fills no group.
        let expected = vec![2, 3, 4, 5, 1, 0, 6];
        assert_eq!(of_values(&values, ColumnOrder::ActGroupAware, Some(2)), Some(expected));
        assert_eq!(of_values(&values, ColumnOrder::ActGroupAware, None), None);
    }
}
