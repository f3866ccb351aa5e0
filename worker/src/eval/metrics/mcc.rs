//! `mcc`: Matthews' correlation of the right and the chosen labels (Matthews, 1975), of any number of labels (Gorodkin, 2004), as
//! scikit-learn computes it.

use qpipe_nodes::results::Figure;

use super::{Compared, Metric, SELECTIONS, Value, labels};

/// The metric.
pub(super) struct Mcc;

impl Metric for Mcc {
    fn name(&self) -> &'static str {
        "mcc"
    }

    fn compares(&self) -> Compared {
        Compared::Labels
    }

    fn selections(&self) -> usize {
        SELECTIONS
    }

    fn of(&self, figures: &[&Figure]) -> Result<Value, String> {
        let pairs = labels::pairs(figures);
        let numbers = labels::numbered(&pairs);
        let count = numbers.len();
        let pairs: Vec<[usize; 2]> = pairs.iter().map(|pair| pair.map(|label| numbers[&label])).collect();
        Ok(Box::new(move |selected| {
            let (mut right, mut chosen) = (vec![0_u64; count], vec![0_u64; count]);
            let mut both = 0_u64;
            for &question in selected {
                let [one, other] = pairs[question];
                right[one] += 1;
                chosen[other] += 1;
                both += u64::from(one == other);
            }
            correlation(both, &right, &chosen, selected.len() as u64)
        }))
    }
}

/// Of `total` questions with so many of each right and of each chosen label, of which `both` are the same. 0 where all are of one
/// label.
fn correlation(both: u64, right: &[u64], chosen: &[u64], total: u64) -> f64 {
    let product = |one: &[u64], other: &[u64]| one.iter().zip(other).map(|(one, other)| one * other).sum();
    let covariance = |same: u64, of: u64| (same * total) as f64 - of as f64;
    let together = covariance(both, product(right, chosen));
    let alone = covariance(total, product(chosen, chosen)) * covariance(total, product(right, right));
    if alone == 0.0 { 0.0 } else { together / alone.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::together;

    /// The value is that of lm_eval 0.4.13 with scikit-learn 1.9.1: `matthews_corrcoef(pairs)`. The spread is lm_eval's
    /// `bootstrap_stderr(f, pairs, 100000)` of a function that equals theirs on 150 of the samples: theirs takes minutes.
    #[test]
    fn labels_correlate() {
        let figures = MCC_PAIRS.map(Figure::Labels);
        let (value, stderr) = together(&Mcc, &figures.each_ref(), 2).expect("a figure");
        assert!((value - MCC_VALUE).abs() < 1e-12, "{value}");
        assert!(stderr.is_some_and(|stderr| (stderr - MCC_STDERR).abs() < 1e-12), "{stderr:?}");
        let (value, stderr) = together(&Mcc, &figures.each_ref()[..1], 1).expect("a figure");
        assert_eq!((value, stderr), (0.0, None));
    }

    const MCC_PAIRS: [[i64; 2]; 7] = [[0, 0], [1, 2], [2, 2], [1, 1], [-100, 0], [2, 1], [0, 0]];
    const MCC_VALUE: f64 = 0.412_478_955_692_152_76;
    const MCC_STDERR: f64 = 0.259_965_162_839_530_8;
}
