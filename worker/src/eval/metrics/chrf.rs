//! `chrf` (Popović, 2015) and `chrf++` (Popović, 2017) of all replies against one right text each, as sacrebleu computes them by
//! default: runs of up to six characters without whitespace, for chrF++ of one and two words too, recall four times as heavy
//! as precision.

use qpipe_nodes::results::Figure;

use super::{Compared, FEW_SELECTIONS, Metric, Value, counts_of_texts, ngrams, sum};
use crate::eval::python;

/// Characters of the longest run.
const CHARACTERS: usize = 6;
/// Words of the longest run that any of the two counts.
const WORDS: usize = 2;
/// Of each length of runs: those of the reply, those of the right text, those that match.
const COUNTS: usize = 3 * (CHARACTERS + WORDS);
/// How much heavier recall is than precision.
const RECALL: f64 = 4.0;

/// The metric.
pub(super) struct Chrf {
    /// As task files name it.
    pub(super) name: &'static str,
    /// Words of the longest run that counts.
    pub(super) word_order: usize,
}

impl Metric for Chrf {
    fn name(&self) -> &'static str {
        self.name
    }

    fn compares(&self) -> Compared {
        Compared::Texts
    }

    fn selections(&self) -> usize {
        FEW_SELECTIONS
    }

    fn of(&self, figures: &[&Figure]) -> Result<Value, String> {
        let counts = counts_of_texts(figures, |right, reply| counts(right, reply, self.word_order));
        Ok(Box::new(move |selected| value(sum(&counts, selected))))
    }
}

fn counts(right: &str, reply: &str, word_order: usize) -> [u64; COUNTS] {
    let mut all = [0; COUNTS];
    let (places, rest) = all.as_chunks_mut::<3>();
    debug_assert!(rest.is_empty());
    let characters = |text: &str| -> Vec<char> { python::split(text).flat_map(str::chars).collect() };
    let (right_characters, reply_characters) = (characters(right), characters(reply));
    let (right_words, reply_words) = (words(right), words(reply));
    let of_characters = (1..=CHARACTERS).map(|order| runs(&right_characters, &reply_characters, order));
    let of_words = (1..=word_order).map(|order| runs(&right_words, &reply_words, order));
    for (place, counts) in places.iter_mut().zip(of_characters.chain(of_words)) {
        *place = counts;
    }
    all
}

/// Of one length of runs: those of the reply, those of the right text, those that match.
fn runs<T: Eq + std::hash::Hash>(right: &[T], reply: &[T], order: usize) -> [u64; 3] {
    let count = |items: &[T]| (items.len() + 1).saturating_sub(order) as u64;
    // Where the right text is shorter than a run, the reply's do not count.
    if count(right) == 0 {
        return [0; 3];
    }
    let matching = ngrams::matches(&ngrams::counted(reply, order), &ngrams::counted(right, order));
    [count(reply), count(right), matching]
}

/// Words, from which a punctuation mark at the end is taken off, or else one at the beginning.
fn words(text: &str) -> Vec<&str> {
    let is_mark = |character: char| character.is_ascii_punctuation();
    let mut words = Vec::new();
    for word in python::split(text) {
        let last = word.char_indices().next_back().map_or(0, |(place, _)| place);
        if last > 0 && word.ends_with(is_mark) {
            words.extend([&word[..last], &word[last..]]);
        } else if last > 0 && word.starts_with(is_mark) {
            words.extend([&word[..1], &word[1..]]);
        } else {
            words.push(word);
        }
    }
    words
}

fn value(counts: [u64; COUNTS]) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0_u32);
    for &[reply, right, matching] in counts.as_chunks::<3>().0 {
        if reply > 0 && right > 0 {
            precision += matching as f64 / reply as f64;
            recall += matching as f64 / right as f64;
            orders += 1;
        }
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / f64::from(orders), recall / f64::from(orders));
    100.0 * ((1.0 + RECALL) * precision * recall / (RECALL * precision + recall))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::texts;

    /// What is expected is what lm_eval 0.4.13 gives with sacrebleu 2.6.0: corpus_chrf, with `word_order=2` too, and
    /// bootstrap_stderr of them, 100 times.
    #[test]
    fn values_are_those_of_sacrebleu() {
        texts::check(&Chrf { name: "chrf", word_order: 0 }, CHARACTERS_ONLY);
        texts::check(&Chrf { name: "chrf++", word_order: 2 }, WITH_WORDS);
    }

    #[test]
    fn marks_are_words_at_one_end() {
        assert_eq!(
            words("(hi) -a b. . é… «x» \"q"),
            ["(hi", ")", "-", "a", "b", ".", ".", "é…", "«x»", "\"", "q"]
        );
    }

    const CHARACTERS_ONLY: texts::Expected = [
        (1, 55.42193702563508, 0.0),
        (3, 61.481678545730276, 3.2739302491154643),
        (10, 58.93183749904929, 9.963840035939882),
    ];
    const WITH_WORDS: texts::Expected = [
        (1, 55.50034946743184, 0.0),
        (3, 58.56671386997762, 2.891600276030112),
        (10, 56.755904183660036, 9.31733165403463),
    ];
}
