//! What is taken out of a reply before it is judged: lm-eval's filters, under the names of its task files.

use crate::eval::python::pattern::{Pattern, PatternError};
use crate::eval::python::{self, translate::Flags};

/// What stands for a reply in which nothing is found.
const INVALID: &str = "[invalid]";

/// A filter: steps, one after another.
#[derive(Clone, Debug)]
pub struct Filter {
    /// As tables call it.
    pub name: String,
    steps: Vec<Step>,
}

/// A step of a filter.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// `regex`: the match with this number, from the end where it is negative; of its groups the first that is not empty.
    Regex {
        /// What is looked for.
        pattern: Pattern,
        /// Which match.
        select: i64,
        /// What stands for none.
        fallback: String,
    },
    /// `remove_whitespace`: without whitespace at its ends.
    RemoveWhitespace,
    /// `lowercase`.
    Lowercase,
    /// `uppercase`.
    Uppercase,
}

impl Step {
    /// `regex` with the defaults of lm-eval.
    ///
    /// # Errors
    /// When `source` is no regular expression of Python.
    pub(super) fn regex(source: &str, select: i64) -> Result<Self, PatternError> {
        let pattern = Pattern::new(source, Flags::default())?;
        Ok(Self::Regex { pattern, select, fallback: INVALID.to_owned() })
    }

    fn apply(&self, text: String) -> Result<String, PatternError> {
        Ok(match self {
            Self::RemoveWhitespace => python::strip(&text).to_owned(),
            Self::Lowercase => text.to_lowercase(),
            Self::Uppercase => text.to_uppercase(),
            Self::Regex { pattern, select, fallback } => {
                let found = pattern.find_all(&text)?;
                let index = match select {
                    0.. => usize::try_from(*select).ok(),
                    _ => found.len().checked_add_signed(*select as isize),
                };
                let groups = index.and_then(|index| found.get(index));
                match groups.and_then(|groups| groups.iter().find(|group| !group.is_empty())) {
                    Some(group) => python::strip(group).to_owned(),
                    // A match of no characters is a match, unless several groups could have had some.
                    None if groups.is_some_and(|groups| groups.len() == 1) => String::new(),
                    None => fallback.clone(),
                }
            }
        })
    }
}

impl Filter {
    /// Of these steps.
    pub(super) fn new(name: &str, steps: Vec<Step>) -> Self {
        Self { name: name.to_owned(), steps }
    }

    /// What it leaves of `reply`.
    ///
    /// # Errors
    /// When an expression backtracks without end.
    pub(super) fn apply(&self, reply: &str) -> Result<String, PatternError> {
        self.steps.iter().try_fold(reply.to_owned(), |text, step| step.apply(text))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn filtered(steps: Vec<Step>, reply: &str) -> String {
        Filter::new("f", steps).apply(reply).unwrap()
    }

    #[test]
    fn a_match_is_selected_from_either_end() {
        let flexible = |select| vec![Step::regex("(-?[$0-9.,]{2,})|(-?[0-9]+)", select).unwrap()];
        assert_eq!(filtered(flexible(-1), "3 apples and 12 pears"), "12");
        assert_eq!(filtered(flexible(0), "3 apples and 12 pears"), "3");
        assert_eq!(filtered(flexible(2), "3 apples and 12 pears"), "[invalid]");
        assert_eq!(filtered(flexible(-1), "none"), "[invalid]");
        assert_eq!(
            filtered(vec![Step::regex(r"#### (\-?[0-9\.\,]+)", 0).unwrap()], "So\n#### 1,234."),
            "1,234."
        );
    }

    #[test]
    fn steps_follow_one_another() {
        let steps = vec![Step::RemoveWhitespace, Step::Lowercase, Step::regex("[a-z]+", 0).unwrap()];
        assert_eq!(filtered(steps, "  YES."), "yes");
        assert_eq!(filtered(vec![Step::RemoveWhitespace, Step::Uppercase], "  yes"), "YES");
    }
}
