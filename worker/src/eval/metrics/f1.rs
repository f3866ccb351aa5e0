//! `f1` (van Rijsbergen, 1979): the harmonic mean of precision and recall of the label 1, as scikit-learn computes it of two
//! labels.

use qpipe_nodes::results::Figure;

use super::{Compared, Metric, SELECTIONS, Value, labels, sum};

/// The label that is looked for.
const POSITIVE: i64 = 1;

/// The metric.
pub(super) struct F1;

impl Metric for F1 {
    fn name(&self) -> &'static str {
        "f1"
    }

    fn compares(&self) -> Compared {
        Compared::Labels
    }

    fn selections(&self) -> usize {
        SELECTIONS
    }

    fn of(&self, figures: &[&Figure]) -> Result<Value, String> {
        let pairs = labels::pairs(figures);
        let found = labels::numbered(&pairs);
        if found.len() > 2 || (found.len() == 2 && !found.contains_key(&POSITIVE)) {
            let found: Vec<String> = found.keys().map(i64::to_string).collect();
            return Err(format!(
                "`f1` is of two labels, of which one is {POSITIVE}; these are {}",
                found.join(", ")
            ));
        }
        // Right and chosen, right or chosen: the latter counted in each.
        let of_pair = |&[right, chosen]: &[i64; 2]| {
            let (right, chosen) = (right == POSITIVE, chosen == POSITIVE);
            [u64::from(right && chosen), u64::from(right) + u64::from(chosen)]
        };
        let counts: Vec<[u64; 2]> = pairs.iter().map(of_pair).collect();
        Ok(Box::new(move |selected| match sum(&counts, selected) {
            [_, 0] => 0.0,
            [both, each] => 2.0 * both as f64 / each as f64,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::together;

    /// The value is that of lm_eval 0.4.13 with scikit-learn 1.9.1: `f1_score(pairs)`. The spread is lm_eval's
    /// `bootstrap_stderr(f, pairs, 100000)` of a function that equals theirs on 150 of the samples: theirs takes minutes.
    #[test]
    fn precision_and_recall_come_together() {
        let figures = F1_PAIRS.map(Figure::Labels);
        let (value, stderr) = together(&F1, &figures.each_ref(), 2).expect("a figure");
        assert!((value - F1_VALUE).abs() < 1e-12, "{value}");
        assert!(stderr.is_some_and(|stderr| (stderr - F1_STDERR).abs() < 1e-12), "{stderr:?}");
    }

    #[test]
    fn labels_are_two() {
        let of = |pairs: &[[i64; 2]]| {
            let figures: Vec<Figure> = pairs.iter().copied().map(Figure::Labels).collect();
            let figures: Vec<&Figure> = figures.iter().collect();
            F1.of(&figures).map(|value| value(&(0..pairs.len()).collect::<Vec<_>>()))
        };
        assert_eq!((of(&[[0, 0]]), of(&[[1, 1]]), of(&[[2, 2]])), (Ok(0.0), Ok(1.0), Ok(0.0)));
        assert_eq!(of(&[[2, 1], [1, 1]]), Ok(2.0 / 3.0));
        for pairs in [[[0, 1], [2, 1]], [[0, 2], [0, 0]]] {
            assert!(of(&pairs).is_err_and(|problem| problem.contains("these are 0, ")), "{pairs:?}");
        }
    }

    const F1_PAIRS: [[i64; 2]; 7] = [[1, 1], [0, 1], [1, 0], [1, 1], [0, 0], [0, 0], [1, 1]];
    const F1_VALUE: f64 = 0.75;
    const F1_STDERR: f64 = 0.199_101_547_812_838_68;
}
