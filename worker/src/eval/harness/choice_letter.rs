//! `multi_choice_regex`: the letter of the choice that a reply names.

use std::collections::HashMap;

use regex::Regex;
use serde_json::Value;

use super::filter::{FilterError, entries, selected};
use crate::eval::python::pattern::{Pattern, PatternError};
use crate::eval::python::{self, translate::Flags};

/// How letters are found.
#[derive(Clone, Debug)]
pub(super) struct ChoiceLetter {
    /// What is looked for before all else.
    pub(super) pattern: Pattern,
    /// Which match, from the end where it is negative; for what is looked for later, too.
    pub(super) select: i64,
    /// What stands for none.
    pub(super) fallback: String,
    /// Choices are looked for in lower case.
    pub(super) ignore_case: bool,
    /// Choices are looked for without punctuation, which is Unicode's.
    pub(super) punctuation: Option<Regex>,
    /// What they match is taken out before choices are looked for.
    pub(super) ignored: Vec<Pattern>,
}

/// The same for the choices of one row.
pub(super) struct OfRow<'a> {
    letter: &'a ChoiceLetter,
    /// Finds the text of a choice.
    choices: Pattern,
    /// `(A)` by text.
    by_text: HashMap<String, String>,
    /// Finds a letter after a colon.
    letters: Pattern,
    /// `(A)` by letter.
    by_letter: HashMap<String, String>,
}

impl ChoiceLetter {
    /// Reads the choices of `row`, which are its field `choices`.
    ///
    /// # Errors
    /// When they are no texts, or are so many that their letters are none.
    pub(super) fn of_row(&self, row: &Value) -> Result<OfRow<'_>, FilterError> {
        let texts = row.get("choices").map(entries).ok_or(FilterError::NoChoices)?;
        let (mut by_text, mut by_letter) = (HashMap::new(), HashMap::new());
        let (mut sources, mut letters) = (Vec::new(), Vec::new());
        for (text, letter) in texts.iter().zip('A'..) {
            let text = self.reduced(python::strip(text.as_str().ok_or(FilterError::NoChoices)?))?;
            sources.push(escaped(&text));
            by_text.insert(text, format!("({letter})"));
            by_letter.insert(letter.to_string(), format!("({letter})"));
            letters.push(letter.to_string());
        }
        // A choice that another one begins with does not hide it.
        sources.sort_by_key(|source| std::cmp::Reverse(source.chars().count()));
        let compiled = |source: &str| Pattern::new(source, Flags::default());
        let choices = compiled(&sources.join("|"))?;
        let letters = compiled(&format!(r":[\s]*({})", letters.join("|")))?;
        Ok(OfRow { letter: self, choices, by_text, letters, by_letter })
    }

    /// A text without what does not count.
    fn reduced(&self, text: &str) -> Result<String, PatternError> {
        let ignored = &mut self.ignored.iter();
        let text = ignored.try_fold(text.to_owned(), |text, pattern| pattern.remove_from(&text))?;
        let text = if self.ignore_case { text.to_lowercase() } else { text };
        Ok(match &self.punctuation {
            Some(punctuation) => punctuation.replace_all(&text, "").into_owned(),
            None => text,
        })
    }
}

impl OfRow<'_> {
    /// What `reply` answers: what the expression matches, else `(A)` of a choice.
    ///
    /// # Errors
    /// When an expression backtracks without end, or the reply is no text.
    pub(super) fn find(&self, reply: &Value) -> Result<String, FilterError> {
        let ChoiceLetter { pattern, select, fallback, .. } = self.letter;
        let found = |pattern, text: &str| -> Result<String, FilterError> {
            let groups = selected(pattern, *select, text)?.unwrap_or_default();
            let group = groups.iter().find(|group| !group.is_empty());
            Ok(group.map(|group| python::strip(group).to_owned()).unwrap_or_default())
        };
        let translated = |found: String, values: &HashMap<String, String>| {
            values.get(&found).cloned().filter(|_| !found.is_empty()).unwrap_or(found)
        };
        let text = reply.as_str().unwrap_or_default();
        let matched = found(pattern, text)?;
        if !matched.is_empty() {
            return Ok(matched);
        }
        if !reply.is_string() {
            let found = crate::eval::python::text_of(reply);
            return Err(FilterError::NoText { step: "multi_choice_regex", found });
        }
        let choice = translated(found(&self.choices, &self.letter.reduced(text)?)?, &self.by_text);
        if !choice.is_empty() {
            return Ok(choice);
        }
        let letter = translated(found(&self.letters, text)?, &self.by_letter);
        Ok(if letter.is_empty() { fallback.clone() } else { letter })
    }
}

/// All of Unicode's punctuation.
pub(super) fn punctuation() -> Regex {
    Regex::new(r"\p{P}").expect("a constant pattern")
}

/// `re.escape(text)`.
fn escaped(text: &str) -> String {
    let is_special = |character: char| "()[]{}?*+-|^$\\.&~# \t\n\r\u{b}\u{c}".contains(character);
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_special(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn letter(source: &str, select: i64) -> ChoiceLetter {
        ChoiceLetter {
            pattern: Pattern::new(source, Flags::default()).unwrap(),
            select,
            fallback: "[invalid]".to_owned(),
            ignore_case: true,
            punctuation: Some(punctuation()),
            ignored: vec![Pattern::new(" the", Flags::default()).unwrap()],
        }
    }

    /// What is expected is what lm-eval 0.4.13 gives.
    #[test]
    fn letters_and_texts_of_choices_are_found() {
        let row = json!({"choices": ["Guilty", "Guilty of the Romance", " e = m*c^2 ", "«Ja», oui"]});
        let first = letter(r"(\([A-Z]\))", 0);
        let last = letter(r"(\([A-Z]\))", -1);
        for (letter, reply, expected) in [
            (&first, "It is (B), or (C).", "(B)"),
            (&last, "It is (B), or (C).", "(C)"),
            (&first, "GUILTY of the romance!", "(B)"),
            (&first, "guilty, guilty of romance", "(A)"),
            (&last, "guilty, guilty of romance", "(B)"),
            (&first, "E = M*C^2?", "(C)"),
            (&first, "ja oui", "(D)"),
            (&first, "The answer: C", "(C)"),
            (&first, "The answer:\n D", "(D)"),
            (&first, "answer: E", "[invalid]"),
            (&first, "", "[invalid]"),
        ] {
            assert_eq!(letter.of_row(&row).unwrap().find(&reply.into()).unwrap(), expected, "{reply}");
        }
    }

    #[test]
    fn a_row_needs_choices() {
        let letter = letter("x", 0);
        assert_eq!(letter.of_row(&json!({})).err(), Some(FilterError::NoChoices));
        assert_eq!(letter.of_row(&json!({"choices": [1]})).err(), Some(FilterError::NoChoices));
        let named = json!({"choices": {"text": ["x"], "label": ["A"]}});
        assert_eq!(letter.of_row(&named).unwrap().find(&"my label".into()).unwrap(), "(B)");
    }
}
