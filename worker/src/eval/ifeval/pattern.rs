//! Regular expressions among the arguments of instructions. Errors name the instruction and the argument.

use super::error::IfevalError;
use crate::eval::python::pattern::{self, PatternError};
use crate::eval::python::translate::Flags;

/// An expression of one argument of an instruction.
pub(super) struct Pattern {
    id: &'static str,
    argument: &'static str,
    pattern: pattern::Pattern,
}

impl Pattern {
    /// `source` as `re.compile` takes it.
    pub(super) fn new(id: &'static str, argument: &'static str, source: &str) -> Result<Self, IfevalError> {
        Self::with(id, argument, source, Flags::default())
    }

    /// With `re.IGNORECASE`.
    pub(super) fn ignoring_case(
        id: &'static str,
        argument: &'static str,
        source: &str,
    ) -> Result<Self, IfevalError> {
        Self::with(id, argument, source, Flags { ignore_case: true, ..Flags::default() })
    }

    /// With `re.MULTILINE`.
    pub(super) fn of_lines(
        id: &'static str,
        argument: &'static str,
        source: &str,
    ) -> Result<Self, IfevalError> {
        Self::with(id, argument, source, Flags { multi_line: true, ..Flags::default() })
    }

    fn with(
        id: &'static str,
        argument: &'static str,
        source: &str,
        flags: Flags,
    ) -> Result<Self, IfevalError> {
        let pattern = pattern::Pattern::new(source, flags).map_err(|error| IfevalError::Pattern {
            id,
            argument,
            problem: error.to_string(),
        })?;
        Ok(Self { id, argument, pattern })
    }

    /// How many groups it captures.
    pub(super) fn groups(&self) -> usize {
        self.pattern.groups()
    }

    /// Whether it matches anywhere in `text`.
    pub(super) fn occurs(&self, text: &str) -> Result<bool, IfevalError> {
        self.pattern.occurs(text).map_err(|error| self.failed(&error))
    }

    /// How many matches `re.findall` finds.
    pub(super) fn count(&self, text: &str) -> Result<usize, IfevalError> {
        self.pattern.count(text).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &PatternError) -> IfevalError {
        IfevalError::Pattern { id: self.id, argument: self.argument, problem: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(source: &str) -> Pattern {
        Pattern::ignoring_case("keywords:frequency", "keyword", source).expect("an expression")
    }

    fn count(source: &str, text: &str) -> usize {
        pattern(source).count(text).expect("a count")
    }

    #[test]
    fn a_keyword_is_an_expression_and_matches_inside_words() {
        assert_eq!(count("war", "War, wars, award, swear"), 3);
        assert_eq!(count("w.r", "war wer w\nr"), 2);
        assert_eq!(count(r"\bwar\b", "War, wars, _war, war"), 2);
    }

    #[test]
    fn empty_matches_are_counted_as_python_counts_them() {
        assert_eq!(count("", "aé"), 3);
        assert_eq!(count("a*", "baac"), 4);
        assert_eq!(count("a*?", "aa"), 5);
        assert_eq!(count("x|", "xax"), 4);
        assert_eq!(count("|x", "xax"), 6);
        assert_eq!(count("(?=a)|a", "aba"), 4);
    }

    #[test]
    fn groups_are_looked_around_and_referred_to() {
        assert_eq!(count(r"(\w)\1", "aA bb cd"), 2);
        assert_eq!(count(r"(?P<q>['-])war(?P=q)", "'war' -war- 'war-"), 2);
        assert_eq!(count(r"war(?!s)", "war wars"), 1);
        assert_eq!(count(r"(?<=the )war", "the war, a war"), 1);
        assert_eq!(count(r"(a)?b(?(1)c|d)", "abc bd bc"), 2);
    }

    #[test]
    fn an_expression_that_backtracks_without_end_is_an_error() {
        let error = pattern(r"(a|a)*(?=b)c").count(&"a".repeat(60)).expect_err("too many steps");
        assert!(error.to_string().contains("`keyword` has `(a|a)*(?=b)c`"), "{error}");
    }
}
