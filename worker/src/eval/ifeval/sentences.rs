//! Sentences as NLTK's Punkt tokenizer for English splits them.
//!
//! A break is sought where a mark that can end a sentence is followed by white space or another mark. The word
//! before it and the token after it decide, by what [`super::punkt`] knows of them. Closing quotation marks and
//! brackets after a break still belong to the sentence before it.

use super::punkt::{self, NO_WORD};
use crate::eval::python::is_space;

/// Characters that close what a sentence is wrapped in.
const CLOSING: &str = "\"')]}‘’“”«»";

/// A place where a sentence may end.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    /// Where the word before the mark begins.
    word: usize,
    /// The mark.
    mark: usize,
    /// Where what follows ends.
    end: usize,
    /// Where the next token begins, if white space is before it.
    next: Option<usize>,
    text: &'a str,
}

impl Candidate<'_> {
    /// Whether one of the tokens from the word to what follows ends a sentence, the last one aside.
    fn is_break(&self) -> bool {
        let mut tokens = punkt::tokens(&self.text[self.word..self.end]);
        for index in 1..tokens.len() {
            let (before, from) = tokens.split_at_mut(index);
            if let (Some(token), Some(next)) = (before.last_mut(), from.first()) {
                token.look_at(next);
            }
        }
        tokens.pop();
        tokens.iter().any(punkt::Token::ends_sentence)
    }
}

/// The sentences of `text`.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let pieces = pieces(text);
    let mut sentences = Vec::new();
    // How much of the current piece went to the sentence before it.
    let mut taken = 0;
    for (index, &(from, to)) in pieces.iter().enumerate() {
        let start = from + taken;
        taken = 0;
        if let Some(&(from, to)) = pieces.get(index + 1)
            && let Some((closing, length)) = closing(text.get(from..to).unwrap_or(""))
        {
            sentences.push(&text[start..from + closing]);
            taken = length;
        } else if start < to {
            sentences.push(&text[start..to]);
        }
    }
    sentences
}

/// The text cut at its breaks, by start and end. The last piece can end before it begins: white space at the end of
/// the text is in none.
fn pieces(text: &str) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for candidate in candidates(text).into_iter().filter(Candidate::is_break) {
        pieces.push((start, candidate.mark + 1));
        start = candidate.next.unwrap_or(candidate.mark + 1);
    }
    pieces.push((start, text.trim_end_matches(is_space).len()));
    pieces
}

/// Every place where a sentence may end. Of several in one word (`what?!`) the last counts.
fn candidates(text: &str) -> Vec<Candidate<'_>> {
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    let (mut word, mut before) = (0, 0);
    for (mark, _) in text.match_indices(['.', '?', '!']) {
        let Some((end, next)) = following(text, mark + 1) else { continue };
        // A space at the very beginning counts as none upstream, too.
        let space = text[before..mark].rfind([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']).filter(|&at| at > 0);
        let start = space.map_or(word, |at| before + at + 1);
        if start < before {
            candidates.pop();
        }
        candidates.push(Candidate { word: start, mark, end, next, text });
        (word, before) = (start, mark);
    }
    candidates
}

/// The end of what follows a mark, and where the next token begins if white space is before it.
fn following(text: &str, from: usize) -> Option<(usize, Option<usize>)> {
    let rest = &text[from..];
    let first = rest.chars().next()?;
    if NO_WORD.contains(first) {
        return Some((from + first.len_utf8(), None));
    }
    let token = rest.trim_start();
    if token.is_empty() || token.len() == rest.len() {
        return None;
    }
    let next = text.len() - token.len();
    let length = token.find(char::is_whitespace).unwrap_or(token.len());
    Some((next + length, Some(next)))
}

/// The length of the closing marks at the beginning of `text`, without and with the white space after them. They
/// close something only before white space, two dashes or the end.
fn closing(text: &str) -> Option<(usize, usize)> {
    let rest = text.trim_start_matches(|character| CLOSING.contains(character));
    let marks = text.len() - rest.len();
    let space = rest.len() - rest.trim_start().len();
    let closes = marks > 0 && (rest.is_empty() || space > 0 || rest.starts_with("--"));
    closes.then_some((marks, marks + space))
}

#[cfg(test)]
mod tests {
    use super::sentences;

    #[test]
    fn abbreviations_initials_and_numbers_end_no_sentence() {
        assert_eq!(
            sentences("Mr. Smith met J. Bach at 3 p.m. today. They left."),
            ["Mr. Smith met J. Bach at 3 p.m. today.", "They left."]
        );
        assert_eq!(sentences("It is no. 5 of 3.14. Why?"), ["It is no.", "5 of 3.14.", "Why?"]);
    }

    #[test]
    fn closing_marks_belong_to_the_sentence_before() {
        assert_eq!(
            sentences("(He left.) “Why?” she asked. 'No!' -- Fine."),
            ["(He left.)", "“Why?”", "she asked.", "'No!'", "-- Fine."]
        );
    }

    #[test]
    fn of_several_marks_the_last_ends_a_sentence() {
        assert_eq!(sentences("What?! No... Yes!!! I see."), ["What?!", "No...", "Yes!!!", "I see."]);
        // At the end of the text only the last but one is followed by anything.
        assert_eq!(sentences("Yes!!! "), ["Yes!!", "!"]);
    }

    #[test]
    fn a_blank_text_has_no_sentence() {
        assert!(sentences("").is_empty());
        assert!(sentences(" \n\t").is_empty());
    }
}
