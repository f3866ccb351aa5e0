//! Texts that are scored whole (`loglikelihood_rolling`): how much a word, a byte of them surprises the model.

use qpipe_nodes::results::{Figure, Filtered};

use crate::eval::python;
use crate::eval::task::{Judgement, Score, WholeText};

/// A text, and the text whose words and bytes are counted: the same, or what it was before a task changed it.
pub(super) fn whole(text: String, counted: &str) -> WholeText {
    WholeText { words: words(counted), bytes: counted.len() as u64, text }
}

/// Parts between runs of whitespace; those before the first and after the last count too, even where they are empty.
fn words(text: &str) -> u64 {
    let mut parts = 1;
    let mut in_space = false;
    for character in text.chars() {
        let is_space = python::is_space(character);
        parts += u64::from(is_space && !in_space);
        in_space = is_space;
    }
    parts
}

/// A text adds its log-likelihood, and what that is divided among.
pub(super) fn judge(text: &WholeText, windows: &[Score], wanted: &[String]) -> Judgement {
    let log_likelihood: f64 = windows.iter().map(|score| score.log_probability).sum();
    let among = |count: u64| Figure::Share([log_likelihood, count as f64]);
    let figure = |name: &str| among(if name == "word_perplexity" { text.words } else { text.bytes });
    let metrics = wanted.iter().map(|name| (name.clone(), figure(name))).collect();
    Judgement { pred: None, is_right: None, filtered: vec![Filtered::unfiltered(metrics)] }
}

/// The metric `name` of log-likelihoods and counts, each summed over all texts.
pub fn together(name: &str, log_likelihood: f64, count: f64) -> f64 {
    let nats = -log_likelihood / count;
    match name {
        "bits_per_byte" => nats / std::f64::consts::LN_2,
        _ => nats.exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_parts_at_the_ends_are_words() {
        for (text, count) in [("", 1), ("one", 1), (" one  two\n", 4), ("a\u{1c}b", 2)] {
            assert_eq!(words(text), count, "{text:?}");
        }
        assert_eq!(whole("x".to_owned(), "é 1"), WholeText { text: "x".to_owned(), words: 2, bytes: 4 });
    }

    #[test]
    fn sums_come_before_the_division() {
        assert_eq!(together("word_perplexity", -2.0 * 3.0_f64.ln(), 2.0), 3.0_f64.ln().exp());
        assert!((together("bits_per_byte", -8.0 * std::f64::consts::LN_2, 4.0) - 2.0).abs() < 1e-15);
    }
}
