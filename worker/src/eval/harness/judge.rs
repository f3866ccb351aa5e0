//! What scores are worth.

use qpipe_nodes::results::{Figure, Filtered};

use crate::eval::metrics;
use crate::eval::task::{Document, Judgement, Score, first_highest};

/// The answer is the choice of the highest score; `acc_norm` divides scores by the number of characters of the choice (its
/// documentation says bytes; the program counts characters), `acc_bytes` by that of its bytes. The delimiter before the
/// choice is counted in neither.
pub(super) fn multiple_choice(document: &Document, scores: &[Score], metrics: &[String]) -> Judgement {
    let best = |size: &dyn Fn(&str) -> f64| {
        let values = scores.iter().zip(&document.choices);
        first_highest(values.map(|(score, choice)| score.log_probability / size(choice)))
    };
    let is_right = |pred: u32| document.gold.contains(&pred);
    let figure = |pred: u32| Figure::Number(f64::from(u8::from(is_right(pred))));
    let pred = best(&|_| 1.0);
    let value = |name: &str| match name {
        "acc" => figure(pred),
        "acc_norm" => figure(best(&|choice| choice.chars().count() as f64)),
        "acc_bytes" => figure(best(&|choice| choice.len() as f64)),
        name if metrics::compares_labels(name) => {
            let right = document.gold.first().map_or(metrics::NO_LABEL, |&gold| i64::from(gold));
            Figure::Labels([right, i64::from(pred)])
        }
        // Of the metrics that the catalog names none is left.
        _ => Figure::Number(f64::NAN),
    };
    let metrics = metrics.iter().map(|name| (name.clone(), value(name))).collect();
    Judgement {
        pred: Some(pred),
        is_right: Some(is_right(pred)),
        filtered: vec![Filtered::unfiltered(metrics)],
    }
}

/// A continuation is right where each of its tokens is the model's first choice.
pub(super) fn continued(scores: &[Score], wanted: &[String]) -> Judgement {
    let is_right = scores.iter().all(|score| score.is_greedy);
    let log_likelihood: f64 = scores.iter().map(|score| score.log_probability).sum();
    let value = |name: &str| match name {
        "perplexity" => Figure::Number(log_likelihood),
        _ => Figure::Number(f64::from(u8::from(is_right))),
    };
    let metrics = wanted.iter().map(|name| (name.clone(), value(name))).collect();
    Judgement { pred: None, is_right: Some(is_right), filtered: vec![Filtered::unfiltered(metrics)] }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::eval::Place;
    use crate::eval::task::Asked;

    #[test]
    fn characters_and_bytes_normalize_differently() {
        let document = Document {
            place: Place { file: Arc::new(PathBuf::from("x.jsonl")), line: 1 },
            asked: Asked::Continuations(Vec::new()),
            choices: ["abcd", "éé", "a"].map(str::to_owned).to_vec(),
            gold: vec![0],
            source: None,
        };
        let scores = [-4.4, -2.1, -1.3].map(|log_probability| Score { log_probability, is_greedy: false });
        let found = multiple_choice(&document, &scores, &["acc", "acc_norm", "acc_bytes"].map(str::to_owned));
        assert_eq!((found.pred, found.is_right), (Some(2), Some(false)));
        // -1.1, -1.05, -1.3 a character; -1.1, -0.525, -1.3 a byte.
        let expected = [("acc", 0.0), ("acc_bytes", 0.0), ("acc_norm", 0.0)];
        let expected = expected.map(|(name, value)| (name.to_owned(), Figure::Number(value)));
        assert_eq!(found.filtered, [Filtered::unfiltered(expected.into())]);
        let labels = multiple_choice(&document, &scores, &["f1".to_owned()]);
        assert_eq!(labels.filtered[0].metrics["f1"], Figure::Labels([0, 2]));
        let right =
            multiple_choice(&Document { gold: vec![1], ..document }, &scores, &["acc_norm".to_owned()]);
        assert_eq!(right.filtered[0].metrics["acc_norm"], Figure::Number(1.0));
    }
}
