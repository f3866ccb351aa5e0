//! What scores are worth.

use std::collections::BTreeMap;

use crate::eval::task::{Document, Judgement, Score, first_highest};

/// Whether more of a metric is better, by its name.
pub fn metric_is_better_when_higher(name: &str) -> bool {
    !matches!(name, "word_perplexity" | "byte_perplexity" | "bits_per_byte" | "perplexity" | "brier_score")
}

/// The answer is the choice of the highest score; `acc_norm` divides scores by the number of characters of the choice (its
/// documentation says bytes; the program counts characters), `acc_bytes` by that of its bytes. The delimiter before the
/// choice is counted in neither.
pub(super) fn multiple_choice(document: &Document, scores: &[Score], metrics: &[&str]) -> Judgement {
    let best = |size: &dyn Fn(&str) -> f64| {
        let values = scores.iter().zip(&document.choices);
        first_highest(values.map(|(score, choice)| score.log_probability / size(choice)))
    };
    let is_right = |pred: u32| f64::from(u8::from(document.gold.contains(&pred)));
    let pred = best(&|_| 1.0);
    let value = |name: &str| match name {
        "acc" => is_right(pred),
        "acc_norm" => is_right(best(&|choice| choice.chars().count() as f64)),
        "acc_bytes" => is_right(best(&|choice| choice.len() as f64)),
        // Of the metrics that the catalog names none is left.
        _ => f64::NAN,
    };
    let metrics: BTreeMap<String, f64> = metrics.iter().map(|&name| (name.to_owned(), value(name))).collect();
    Judgement { pred, metrics }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::eval::Place;

    #[test]
    fn characters_and_bytes_normalize_differently() {
        let document = Document {
            place: Place { file: Arc::new(PathBuf::from("x.jsonl")), line: 1 },
            requests: Vec::new(),
            choices: ["abcd", "éé", "a"].map(str::to_owned).to_vec(),
            gold: vec![0],
            source: None,
        };
        let scores = [-4.4, -2.1, -1.3].map(|log_probability| Score { log_probability, is_greedy: false });
        let found = multiple_choice(&document, &scores, &["acc", "acc_norm", "acc_bytes"]);
        assert_eq!(found.pred, 2);
        // -1.1, -1.05, -1.3 a character; -1.1, -0.525, -1.3 a byte.
        let expected = [("acc", 0.0), ("acc_bytes", 0.0), ("acc_norm", 0.0)];
        assert_eq!(found.metrics, expected.map(|(name, value)| (name.to_owned(), value)).into());
        let right = multiple_choice(&Document { gold: vec![1], ..document }, &scores, &["acc_norm"]);
        assert_eq!(right.metrics["acc_norm"], 1.0);
    }
}
