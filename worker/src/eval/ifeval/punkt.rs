//! What Punkt learned from English text: NLTK's parameters, and the words that it looks at.
//!
//! The parameters are those of the folder `english` in NLTK's data package `punkt_tab`, which the crate `punkt_n` carries.
//! Its own tokenizer is another one. Punkt learns them from plain text: Kiss and Strunk, Unsupervised multilingual sentence boundary
//! detection, Computational Linguistics 32(4), 2006.

use std::sync::LazyLock;

use punkt_n::TrainingData;

use crate::eval::python::is_space;

/// Seen with a capital letter at the beginning, in the middle, or at an unknown place of a sentence.
const UPPER: u8 = 0b1110;
/// Seen with a capital letter in the middle of a sentence.
const MIDDLE_UPPER: u8 = 0b100;
/// Seen with a small letter anywhere.
const LOWER: u8 = 0b111_0000;
/// Seen with a small letter at the beginning of a sentence.
const FIRST_LOWER: u8 = 0b1_0000;

/// Characters that end a word, apart from the period.
pub(super) const NO_WORD: &str = ")\";}]*:@'({[‘’“”«»?!";
/// Characters that begin no word.
const NO_WORD_START: &str = "(\"`{[:;&#*@)}]-,";

/// What was learned. Words are in small letters, numbers are all `##number##`.
static ENGLISH: LazyLock<TrainingData> = LazyLock::new(TrainingData::english);

/// Whether a word, without its period and in small letters, is an abbreviation. Of a compound the last part counts.
fn is_abbreviation(word: &str) -> bool {
    let last = word.rsplit('-').next().unwrap_or(word);
    ENGLISH.contains_abbrev(word) || ENGLISH.contains_abbrev(last)
}

/// A word of a text, or a mark.
pub(super) struct Token<'a> {
    text: &'a str,
    /// The text in small letters, numbers as `##number##`.
    kind: String,
    ends_sentence: bool,
    is_abbreviation: bool,
}

impl<'a> Token<'a> {
    /// Judged by itself alone.
    pub(super) fn new(text: &'a str) -> Self {
        let lower = text.to_lowercase();
        let (mut ends_sentence, mut abbreviation) = (matches!(text, "." | "?" | "!"), false);
        if !ends_sentence && text.ends_with('.') && !text.ends_with("..") {
            abbreviation = is_abbreviation(&lower[..lower.len() - 1]);
            ends_sentence = !abbreviation;
        }
        let kind = if is_number(&lower) { "##number##".to_owned() } else { lower };
        Self { text, kind, ends_sentence, is_abbreviation: abbreviation }
    }

    /// Whether a sentence ends with it.
    pub(super) fn ends_sentence(&self) -> bool {
        self.ends_sentence
    }

    /// Judges it again by the token after it.
    pub(super) fn look_at(&mut self, next: &Token<'_>) {
        if !self.text.ends_with('.') {
            return;
        }
        let kind = self.kind_without_period();
        let next_kind = next.kind_in_sentence();
        if ENGLISH.contains_collocation(kind, next_kind) {
            self.ends_sentence = false;
            return;
        }
        let is_initial = self.is_initial();
        let may_begin = next.may_begin_sentence();
        let is_ellipsis = self.text.len() > 1 && self.text.bytes().all(|byte| byte == b'.');
        if (self.is_abbreviation || is_ellipsis)
            && !is_initial
            && (may_begin == Some(true) || (next.is_upper() && ENGLISH.contains_sentence_starter(next_kind)))
        {
            self.ends_sentence = true;
            return;
        }
        if is_initial || kind == "##number##" {
            let always_upper = next.is_upper() && context(next_kind) & LOWER == 0;
            if may_begin == Some(false) || (may_begin.is_none() && is_initial && always_upper) {
                self.ends_sentence = false;
            }
        }
    }

    /// Whether it looks like the beginning of a sentence; nothing where that cannot be told.
    fn may_begin_sentence(&self) -> Option<bool> {
        if matches!(self.text, ";" | ":" | "," | "." | "!" | "?") {
            return Some(false);
        }
        let seen = context(self.kind_in_sentence());
        if self.is_upper() && seen & LOWER != 0 && seen & MIDDLE_UPPER == 0 {
            return Some(true);
        }
        let is_lower = self.text.starts_with(char::is_lowercase);
        (is_lower && (seen & UPPER != 0 || seen & FIRST_LOWER == 0)).then_some(false)
    }

    fn is_upper(&self) -> bool {
        self.text.starts_with(char::is_uppercase)
    }

    /// A letter with a period.
    fn is_initial(&self) -> bool {
        let mut characters = self.text.chars();
        let letter = characters.next().is_some_and(is_letter);
        letter && characters.as_str() == "."
    }

    fn kind_without_period(&self) -> &str {
        self.kind.strip_suffix('.').filter(|kind| !kind.is_empty()).unwrap_or(&self.kind)
    }

    fn kind_in_sentence(&self) -> &str {
        if self.ends_sentence { self.kind_without_period() } else { &self.kind }
    }
}

fn context(kind: &str) -> u8 {
    ENGLISH.get_orthographic_context(kind)
}

/// A word character of NLTK that is no digit.
fn is_letter(character: char) -> bool {
    static LETTER: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"^[\w&&[^\d]]$").expect("a valid expression"));
    LETTER.is_match(character.encode_utf8(&mut [0; 4]))
}

/// Digits with commas, periods and dashes among them, perhaps a sign and a separator before them.
fn is_number(text: &str) -> bool {
    static NUMBER: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"^-?[.,]?\d[\d,.-]*$").expect("a valid expression"));
    NUMBER.is_match(text)
}

/// The tokens of `text`, line by line.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let lines = text.split('\n').filter(|line| !line.chars().all(is_space));
    lines.flat_map(words).map(Token::new).collect()
}

fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        if let Some(marks) = dashes_or_dots(rest) {
            length = marks;
        } else if !NO_WORD_START.contains(first) {
            while !ends_word(&rest[length..]) {
                length += rest[length..].chars().next().map_or(0, char::len_utf8);
            }
        }
        words.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    words
}

/// The length of two or more dashes, of two or more dots, or of three or more dots with spaces between them.
fn dashes_or_dots(text: &str) -> Option<usize> {
    for mark in ['-', '.'] {
        let length = text.len() - text.trim_start_matches(mark).len();
        if length > 1 {
            return Some(length);
        }
    }
    let (mut dots, mut end, mut at) = (0, 0, 0);
    while text[at..].starts_with('.') {
        dots += 1;
        end = at + 1;
        match text[end..].chars().next().filter(|next| next.is_whitespace()) {
            Some(space) => at = end + space.len_utf8(),
            None => break,
        }
    }
    (dots > 2).then_some(end)
}

/// Whether a word ends before `rest`.
fn ends_word(rest: &str) -> bool {
    let ends = |rest: &str| {
        let next = rest.chars().next();
        next.is_none_or(|next| next.is_whitespace() || NO_WORD.contains(next))
            || dashes_or_dots(rest).is_some()
    };
    ends(rest) || rest.strip_prefix(',').is_some_and(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_those_of_english() {
        assert!(is_abbreviation("mr") && is_abbreviation("x-dr") && !is_abbreviation("tea"));
        assert!(ENGLISH.contains_collocation("##number##", "insider"));
        assert!(ENGLISH.contains_sentence_starter("among"));
        assert_eq!((context("colony"), context("qwxz")), (32, 0));
    }

    #[test]
    fn words_keep_their_periods_and_lose_other_marks() {
        assert_eq!(
            words("Mr. Smith's (e.g. \"tea\"), 3,14--no."),
            ["Mr.", "Smith", "'s", "(", "e.g.", "\"", "tea", "\"", ")", ",", "3,14", "--", "no."]
        );
        assert_eq!(words("wait... what. . . end,"), ["wait", "...", "what", ". . .", "end", ","]);
        assert_eq!(words("a. . b"), ["a.", ".", "b"]);
    }
}
