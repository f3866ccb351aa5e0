//! `length_constraints`: how many sentences, paragraphs and words.

use std::sync::LazyLock;

use regex::Regex;

use super::arguments::Arguments;
use super::error::IfevalError;
use super::{Check, sentences};
use crate::eval::python;

/// NLTK's words: letters, marks, digits and connectors. (Python's own `\w` has no marks.)
static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w+").expect("a valid expression"));
static DIVIDER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\s\x1c-\x1f]?\*\*\*[\s\x1c-\x1f]?").expect("a valid expression"));

/// How many sentences.
pub(super) fn number_sentences(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let bound = arguments.bound("relation", "num_sentences")?;
    Ok(Box::new(move |text| Ok(bound.holds(sentences::sentences(text).len()))))
}

/// How many words.
pub(super) fn number_words(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let bound = arguments.bound("relation", "num_words")?;
    Ok(Box::new(move |text| Ok(bound.holds(WORD.find_iter(text).count()))))
}

/// `num_paragraphs` paragraphs with three asterisks between them. More asterisks at either end are passed over.
pub(super) fn number_paragraphs(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let number = arguments.count("num_paragraphs")?;
    Ok(Box::new(move |text| {
        let blank: Vec<bool> = DIVIDER.split(text).map(|part| python::strip(part).is_empty()).collect();
        let inner = blank.get(1..blank.len() - 1).unwrap_or_default();
        Ok(!inner.contains(&true) && blank.iter().filter(|&&blank| !blank).count() == number)
    }))
}

/// `num_paragraphs` paragraphs with an empty line between them, of which paragraph `nth_paragraph` begins with
/// `first_word`. Blank paragraphs are not counted, but have a number.
pub(super) fn nth_paragraph_first_word(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let number = arguments.count("num_paragraphs")?;
    let nth = arguments.count("nth_paragraph")?;
    let word = arguments.text("first_word")?.to_lowercase();
    if nth > number {
        return Err(arguments.wrong("nth_paragraph", format!("at most `num_paragraphs`, which is {number}")));
    }
    Ok(Box::new(move |text| {
        let paragraphs: Vec<&str> = text.split("\n\n").map(python::strip).collect();
        let filled = paragraphs.iter().filter(|paragraph| !paragraph.is_empty()).count();
        Ok(filled == number && first_word(paragraphs[nth - 1]).is_some_and(|first| first == word))
    }))
}

/// The first word of `paragraph` in small letters, without quotation marks before it and without what follows
/// the first mark in it; nothing for a blank one.
fn first_word(paragraph: &str) -> Option<String> {
    let word = python::split(paragraph).next()?;
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let end = word.find(['.', ',', '?', '!', '\'', '"']).unwrap_or(word.len());
    // Letter by letter, as upstream: a sigma does not know that it is the last.
    Some(word[..end].chars().flat_map(char::to_lowercase).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::follows;
    use super::first_word;

    #[test]
    fn a_blank_paragraph_is_allowed_at_either_end() {
        let two = |text| follows("length_constraints:number_paragraphs", json!({"num_paragraphs": 2}), text);
        assert!(two("***\na\n***\nb\n***\n"));
        assert!(!two("a\n***\n***\nb"));
        assert!(!two("a\n\nb"));
    }

    #[test]
    fn a_blank_paragraph_is_not_counted_but_has_a_number() {
        let second = |text| {
            let kwargs = json!({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Elm"});
            follows("length_constraints:nth_paragraph_first_word", kwargs, text)
        };
        assert!(second("Oak.\n\n\"ELM, and more."));
        assert!(!second("Oak.\n\n\n\nElm."));
        assert!(second("\n\nElm.\n\nOak."));
    }

    #[test]
    fn marks_are_part_of_words_and_apostrophes_are_not() {
        let two = |text| {
            let kwargs = json!({"num_words": 2, "relation": "at least"});
            follows("length_constraints:number_words", kwargs, text)
        };
        assert!(two("don't"));
        assert!(!two("नमस्ते"));
        assert!(!two("a_b"));
    }

    #[test]
    fn a_first_word_ends_at_the_first_mark() {
        assert_eq!(first_word("'\"Don't go"), Some("don".to_owned()));
        assert_eq!(first_word("Well-known: a"), Some("well-known:".to_owned()));
        assert_eq!(first_word("\"'Elm\""), Some(String::new()));
        assert_eq!(first_word(" \u{1c}"), None);
    }

    #[test]
    fn a_first_word_is_lowered_letter_by_letter() {
        assert_eq!(first_word("ΟΔΟΣ"), Some("οδοσ".to_owned()));
    }
}
