//! Words as NLTK's `word_tokenize` splits them: sentences first, then the marks of each sentence set apart.
//!
//! The steps rewrite the sentence one after another, as in the Penn Treebank's script that NLTK goes back to. Only
//! where a word begins and ends matters here, but the steps depend on each other, so all are there.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::sentences;
use crate::eval::python;
use crate::eval::python::translate::{self, Flags};

/// What is matched, and what takes its place.
type Step = (&'static str, &'static str);

/// Quotation marks that open, then punctuation.
const MARKS: [Step; 17] = [
    ("([«“‘„]|`+)", " ${1} "),
    ("^\"", "``"),
    ("``", " `` "),
    (r#"([ (\[{<])("|'{2})"#, "${1} `` "),
    (r"(?i)(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
    // The period at the end, before marks that close.
    (r#"([^.])(\.)([\])}>"'»”’ ]*)\s*$"#, "${1} ${2} ${3} "),
    (r"([:,])([^\d])", " ${1} ${2}"),
    (r"([:,])$", " ${1} "),
    (r"\.{2,}", " ${0} "),
    ("[;@#$%&]", " ${0} "),
    (r"[\u2012-\u2015]", " ${0} "),
    (r#"([^.])(\.)([\])}>"']*)\s*$"#, "${1} ${2}${3} "),
    ("[?!]", " ${0} "),
    ("([^'])' ", "${1} ' "),
    (r"\*", " ${0} "),
    (r"[\]\[(){}<>]", " ${0} "),
    ("--", " -- "),
];

/// Quotation marks that close, and endings such as `'s` and `n't`. A space is on either side of the sentence.
const ENDINGS: [Step; 6] = [
    ("[»”’]", " ${0} "),
    ("''", " '' "),
    ("\"", " '' "),
    (r"\s+", " "),
    (r"([^' ])('[sS]|'[mM]|'[dD]|') ", "${1} ${2} "),
    (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "${1} ${2} "),
];

/// Words that are two, as expressions of Python in which case is ignored. Each half becomes a word.
const CONTRACTIONS: [&str; 10] = [
    r"\b(can)(not)\b",
    r"\b(d)('ye)\b",
    r"\b(gim)(me)\b",
    r"\b(gon)(na)\b",
    r"\b(got)(ta)\b",
    r"\b(lem)(me)\b",
    r"\b(more)('n)\b",
    r"\b(wan)(na)(?=\s)",
    r" ('t)(is)\b",
    r" ('t)(was)\b",
];

static MARK_STEPS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| compiled(&MARKS));
static ENDING_STEPS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| compiled(&ENDINGS));
static CONTRACTION_STEPS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let flags = Flags { ignore_case: true, ..Flags::default() };
    let translated = CONTRACTIONS.map(|source| translate::translate(source, flags));
    let steps = translated.into_iter().map(|step| (step.expect("a valid expression").regex, " ${1} ${2} "));
    steps.map(|(source, replacement)| (expression(&source), replacement)).collect()
});

fn compiled(steps: &[Step]) -> Vec<(Regex, &'static str)> {
    steps.iter().map(|&(source, replacement)| (expression(source), replacement)).collect()
}

fn expression(source: &str) -> Regex {
    Regex::new(source).expect("a valid expression")
}

/// The words and marks of `text`.
pub(super) fn words(text: &str) -> Vec<String> {
    sentences::sentences(text).into_iter().flat_map(words_of_sentence).collect()
}

fn words_of_sentence(sentence: &str) -> Vec<String> {
    let marked = rewritten(sentence.to_owned(), &MARK_STEPS);
    let ended = rewritten(format!(" {marked} "), &ENDING_STEPS);
    let split = rewritten(ended, &CONTRACTION_STEPS);
    python::split(&split).map(str::to_owned).collect()
}

fn rewritten(text: String, steps: &[(Regex, &'static str)]) -> String {
    steps.iter().fold(text, |text, (step, replacement)| step.replace_all(&text, *replacement).into_owned())
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn marks_and_endings_are_words_of_their_own() {
        assert_eq!(
            words("\"I can't,\" SHE said (it's 3.5%)... U.S.A. is HERE."),
            [
                "``", "I", "ca", "n't", ",", "''", "SHE", "said", "(", "it", "'s", "3.5", "%", ")", "...",
                "U.S.A.", "is", "HERE", "."
            ]
        );
    }

    #[test]
    fn contractions_fall_into_halves_and_compounds_do_not() {
        assert_eq!(words("Cannot GONNA well-KNOWN A/B"), ["Can", "not", "GON", "NA", "well-KNOWN", "A/B"]);
    }
}
