//! `ter`, translation edit rate (Snover et al., 2006), of all replies against one right text each, as sacrebleu computes it by
//! default: edits a word of the right texts, in percent, upper and lower case the same.

use qpipe_nodes::results::Figure;

use super::{Compared, FEW_SELECTIONS, Metric, Value, counts_of_texts, sum, ter_edits};
use crate::eval::python;

/// The metric.
pub(super) struct Ter;

impl Metric for Ter {
    fn name(&self) -> &'static str {
        "ter"
    }

    fn compares(&self) -> Compared {
        Compared::Texts
    }

    fn selections(&self) -> usize {
        FEW_SELECTIONS
    }

    fn of(&self, figures: &[&Figure]) -> Result<Value, String> {
        let counts = counts_of_texts(figures, counts);
        Ok(Box::new(move |selected| value(sum(&counts, selected))))
    }
}

/// Edits, and words of the right text.
fn counts(right: &str, reply: &str) -> [u64; 2] {
    let (right, reply) = (right.to_lowercase(), reply.to_lowercase());
    let (right, reply): (Vec<&str>, Vec<&str>) =
        (python::split(&right).collect(), python::split(&reply).collect());
    [ter_edits::count(&reply, &right), right.len() as u64]
}

fn value(counts: [u64; 2]) -> f64 {
    match counts {
        [0, 0] => 0.0,
        [_, 0] => 100.0,
        [edits, words] => 100.0 * (edits as f64 / words as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::texts;

    /// What is expected is what lm_eval 0.4.13 gives with sacrebleu 2.6.0: corpus_ter, and bootstrap_stderr(ter, pairs, 100).
    #[test]
    fn values_are_those_of_sacrebleu() {
        texts::check(&Ter, EXPECTED);
    }

    #[test]
    fn texts_without_words_have_a_rate() {
        assert_eq!((value(counts("", "")), value(counts(" ", "a b"))), (0.0, 100.0));
        assert_eq!(value(counts("A b", "")), 100.0);
    }

    const EXPECTED: texts::Expected =
        [(1, 50.0, 0.0), (3, 57.14285714285714, 13.081531677704499), (10, 74.0, 17.021064618582198)];
}
