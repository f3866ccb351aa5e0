//! `exact_match`: whether a reply is the right one, after what does not count is taken out of both.

use crate::eval::python::pattern::{Pattern, PatternError};

/// How two texts are compared, under lm-eval's names.
#[derive(Clone, Debug, Default)]
pub(super) struct ExactMatch {
    /// `regexes_to_ignore`: what they match is taken out, one after another.
    pub(super) ignored: Vec<Pattern>,
    /// `ignore_case`.
    pub(super) ignore_case: bool,
    /// `ignore_punctuation`: that of ASCII.
    pub(super) ignore_punctuation: bool,
    /// `ignore_numbers`: the digits of ASCII.
    pub(super) ignore_numbers: bool,
}

impl ExactMatch {
    /// Whether `reply` says `right`.
    ///
    /// # Errors
    /// When an expression backtracks without end.
    pub(super) fn holds(&self, reply: &str, right: &str) -> Result<bool, PatternError> {
        Ok(self.reduced(reply)? == self.reduced(right)?)
    }

    fn reduced(&self, text: &str) -> Result<String, PatternError> {
        let text =
            self.ignored.iter().try_fold(text.to_owned(), |text, pattern| pattern.remove_from(&text))?;
        let text = if self.ignore_case { text.to_lowercase() } else { text };
        let counts = |character: &char| {
            !(self.ignore_punctuation && character.is_ascii_punctuation()
                || self.ignore_numbers && character.is_ascii_digit())
        };
        Ok(text.chars().filter(counts).collect())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::eval::python::translate::Flags;

    #[test]
    fn what_is_ignored_makes_no_difference() {
        let ignored = [",", r"\$", r"(?s).*#### ", r"\.$"]
            .map(|source| Pattern::new(source, Flags::default()).unwrap());
        let numbers = ExactMatch { ignored: ignored.to_vec(), ignore_case: true, ..ExactMatch::default() };
        assert!(numbers.holds("$1,234.", "He adds.\n#### 1234").unwrap());
        assert!(!numbers.holds("123", "1234").unwrap());
        let words = ExactMatch { ignore_punctuation: true, ignore_numbers: true, ..ExactMatch::default() };
        assert!(words.holds("(a1)", "a").unwrap());
        assert!(!words.holds("A", "a").unwrap());
    }
}
