//! What scores are worth.

use qpipe_nodes::results::{Figure, Filtered};

use serde_json::Value;

use super::gold;
use crate::eval::metrics;
use crate::eval::task::{Document, Judgement, Score, first_highest};

/// The right label for metrics of labels, of a question whose answer `held` is where it was never printed. As in lm-eval an
/// integer below 0 stays what it is, and whatever else is none of the choices is one label.
pub(super) fn right_label(document: &Document, held: Option<&Value>) -> i64 {
    let below = || held.and_then(gold::integer).filter(|&label| label < 0);
    document.gold.first().map(|&label| i64::from(label)).or_else(below).unwrap_or(metrics::NO_LABEL)
}

/// The answer is the choice of the highest score; `acc_norm` divides scores by the number of characters of the choice (its
/// documentation says bytes; the program counts characters), `acc_bytes` by that of its bytes. The delimiter before the
/// choice is counted in neither. Metrics of labels compare with `right_label`.
pub(super) fn multiple_choice(
    document: &Document,
    right_label: i64,
    scores: &[Score],
    metrics: &[String],
) -> Judgement {
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
        name if metrics::compares_labels(name) => Figure::Labels([right_label, i64::from(pred)]),
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

    use serde_json::json;

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
        let judged = |document: &Document, metrics: &[&str]| {
            let metrics: Vec<String> = metrics.iter().map(|&name| name.to_owned()).collect();
            multiple_choice(document, right_label(document, None), &scores, &metrics)
        };
        let found = judged(&document, &["acc", "acc_norm", "acc_bytes"]);
        assert_eq!((found.pred, found.is_right), (Some(2), Some(false)));
        // -1.1, -1.05, -1.3 a character; -1.1, -0.525, -1.3 a byte.
        let expected = [("acc", 0.0), ("acc_bytes", 0.0), ("acc_norm", 0.0)];
        let expected = expected.map(|(name, value)| (name.to_owned(), Figure::Number(value)));
        assert_eq!(found.filtered, [Filtered::unfiltered(expected.into())]);
        let labels = judged(&document, &["f1"]);
        assert_eq!(labels.filtered[0].metrics["f1"], Figure::Labels([0, 2]));
        let right = judged(&Document { gold: vec![1], ..document.clone() }, &["acc_norm"]);
        assert_eq!(right.filtered[0].metrics["acc_norm"], Figure::Number(1.0));
        let none = Document { gold: Vec::new(), ..document };
        let labels = [json!(-1), json!("-1"), json!(3)].map(|held| right_label(&none, Some(&held)));
        assert_eq!(labels, [-1, metrics::NO_LABEL, metrics::NO_LABEL]);
    }
}
