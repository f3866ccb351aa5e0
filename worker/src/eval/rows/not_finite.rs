//! `NaN`, `Infinity` and `-Infinity`, which Python writes into JSON, and the further forms that lm-eval's reader takes. JSON has no
//! numbers for them, and nor have rows: they become the texts that Python prints, `nan`, `inf` and `-inf`. So a template that
//! prints such a field by itself (`{{x}}`) writes what lm-eval's writes. They are texts all the same: comparisons, arithmetic,
//! lists that are printed and the hashes of samples differ from lm-eval's.

use std::iter;

use serde::de::DeserializeOwned;

/// Python's words, and texts instead. A text that is shorter is filled up with blanks, so that what follows keeps its place.
/// A word that begins another stands behind it.
const WORDS: [(&str, &str); 6] = [
    ("NaN", "\"nan\""),
    ("-NaN", "\"nan\""),
    ("-Infinity", "\"-inf\"   "),
    ("Infinity", "\"inf\"   "),
    ("-Inf", "\"-inf\""),
    ("Inf", "\"inf\""),
];

/// What is wrong with JSON.
pub(super) struct Mistake {
    /// The line, from 1.
    pub(super) line: usize,
    /// The column, from 1.
    pub(super) column: usize,
    /// What the parser says.
    pub(super) error: serde_json::Error,
}

/// Reads `text`.
///
/// # Errors
/// When it is no JSON of Python's.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    let mistake = |error: serde_json::Error| Mistake { line: error.line(), column: error.column(), error };
    serde_json::from_str(text).or_else(|error| match replaced(text) {
        // Nothing of the kind stands there.
        None => Err(mistake(error)),
        Some((text, longer)) => serde_json::from_str(&text).map_err(|error| {
            let found = mistake(error);
            let line: usize = text.split_inclusive('\n').take(found.line.max(1) - 1).map(str::len).sum();
            let before = longer.iter().filter(|&&place| (line..line + found.column).contains(&place)).count();
            Mistake { column: found.column.saturating_sub(before).max(1), ..found }
        }),
    })
}

/// `text` with texts for the words outside of texts, and where those that are longer stand in it, once for each byte more.
/// `None`: there are no words.
fn replaced(text: &str) -> Option<(String, Vec<usize>)> {
    let mut out = String::with_capacity(text.len());
    let mut longer = Vec::new();
    let mut is_found = false;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let word = WORDS.iter().find(|(word, _)| rest.starts_with(word));
        // As a key it is a mistake, which is the parser's to find.
        let word = word.filter(|(word, _)| !rest[word.len()..].trim_start().starts_with(':'));
        let length = match (character, word) {
            ('"', _) => length_of_text(rest),
            (_, Some((word, instead))) => {
                is_found = true;
                longer.extend(iter::repeat_n(out.len(), instead.len().saturating_sub(word.len())));
                out.push_str(instead);
                rest = &rest[word.len()..];
                continue;
            }
            _ => character.len_utf8(),
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    is_found.then_some((out, longer))
}

/// Bytes of the text that begins here, with its quotes; all of them where it does not end.
fn length_of_text(text: &str) -> usize {
    let mut is_escaped = false;
    for (place, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(text: &str) -> Result<Value, (usize, usize)> {
        read(text).map_err(|mistake| (mistake.line, mistake.column))
    }

    #[test]
    fn words_of_python_are_texts() {
        let row = r#"{"a": [NaN, -Infinity,Infinity], "NaN\" NaN": "é Infinity \\", "b": 1.5}"#;
        let expected = json!({"a": ["nan", "-inf", "inf"], "NaN\" NaN": "é Infinity \\", "b": 1.5});
        assert_eq!(parsed(row), Ok(expected));
        assert_eq!(parsed("1.5"), Ok(json!(1.5)));
        assert_eq!(parsed("[-NaN,Inf,-Inf]"), Ok(json!(["nan", "inf", "-inf"])));
    }

    #[test]
    fn mistakes_keep_their_places() {
        let plain = parsed(r#"{"a": 1.5, "b": nul}"#);
        assert_eq!(plain, Err((1, 20)));
        assert_eq!(parsed(r#"{"a": NaN, "b": nul}"#), plain);
        assert_eq!(parsed(r#"{"a":-NaN, "b": nul}"#), plain);
        assert_eq!(parsed(r#"{"a": Inf, "b": nul}"#), plain);
        assert_eq!(parsed("[NaN,\nNaN, Infinity, x]"), Err((2, 16)));
        assert_eq!(parsed(r#"{"a": NaNs}"#).map_err(|(line, _)| line), Err(1));
        for key in ["NaN", "-Infinity ", "Inf"] {
            let row = format!(r#"{{"a": NaN, {key}: 1}}"#);
            assert_eq!(parsed(&row), Err((1, 12)), "{row}");
        }
    }
}
