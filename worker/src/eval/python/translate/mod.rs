//! Python's regular expressions in the syntax of `fancy-regex`.
//!
//! What stands for the same in both is written out again; what does not, is written as what it means: `\w`, `\d`
//! and `\s` as Python's classes, `\b` as a look at both sides, a letter whose case is ignored as the set of all
//! letters that Python takes for it. Groups lose their names and keep their numbers.

use std::collections::BTreeMap;

mod class;
mod escape;
mod group;
mod quantifier;
mod sequence;

/// Python's `\w`: letters and numbers, but no marks.
const WORD: &str = r"\p{L}\p{N}_";
/// Python's `\s`.
const SPACE: &str = r"\s\x1C-\x1F";
/// Python's `\d`.
const DIGIT: &str = r"\p{Nd}";

/// How an expression is read.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::eval) struct Flags {
    /// `re.IGNORECASE`.
    pub ignore_case: bool,
    /// `re.MULTILINE`.
    pub multi_line: bool,
    /// `re.DOTALL`.
    pub dot_all: bool,
    /// `re.VERBOSE`.
    pub verbose: bool,
}

/// An expression that says the same to `fancy-regex`.
#[derive(Debug)]
pub(in crate::eval) struct Translated {
    /// The expression.
    pub regex: String,
    /// How many groups it captures.
    pub groups: usize,
}

/// Why an expression is not translated.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(in crate::eval) enum TranslateError {
    /// The end came too early.
    #[error("it ends inside {0}")]
    Unfinished(&'static str),
    /// A closing bracket too many.
    #[error("unbalanced `)`")]
    Unbalanced,
    /// A quantifier with nothing before it.
    #[error("nothing to repeat before `{0}`")]
    NothingToRepeat(String),
    /// A quantifier or a range whose end is below its start.
    #[error("`{0}` ends before it begins")]
    Backwards(String),
    /// A reference to a group that is not there, or not closed.
    #[error("no group `{0}` to refer to")]
    NoGroup(String),
    /// A name that two groups have.
    #[error("group `{0}` is defined twice")]
    SecondGroup(String),
    /// An escape that Python does not know.
    #[error("unknown escape `\\{0}`")]
    Escape(char),
    /// Flags for the whole expression that come late.
    #[error("flags such as `(?i)` may stand at the beginning only")]
    LateFlags,
    /// Something that Python has, and this does not.
    #[error("`{0}` is not supported")]
    Unsupported(String),
}

/// Translates `source`, read with `flags`.
///
/// # Errors
/// When Python would refuse it, or it has one of the few things that are not supported.
pub(in crate::eval) fn translate(source: &str, flags: Flags) -> Result<Translated, TranslateError> {
    let mut translator = Translator {
        source: source.chars().collect(),
        at: 0,
        regex: String::new(),
        closed: Vec::new(),
        names: BTreeMap::new(),
    };
    let mut flags = flags;
    while let Some(set) = translator.leading_flags()? {
        flags = set.applied_to(flags);
    }
    translator.alternatives(flags)?;
    match translator.peek() {
        Some(_) => Err(TranslateError::Unbalanced),
        None => Ok(Translated { regex: translator.regex, groups: translator.closed.len() }),
    }
}

/// What is read, and what is written of it. Each file of this folder has the methods that read one part.
struct Translator {
    source: Vec<char>,
    at: usize,
    regex: String,
    /// Of each group, in the order of their opening, whether it is closed.
    closed: Vec<bool>,
    names: BTreeMap<String, usize>,
}

/// `character` as it stands for itself everywhere.
fn escaped(character: char) -> String {
    if character.is_ascii_alphanumeric() || !character.is_ascii() {
        character.to_string()
    } else {
        format!(r"\x{{{:X}}}", u32::from(character))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(source: &str) -> String {
        translate(source, Flags::default()).map_or_else(|error| error.to_string(), |found| found.regex)
    }

    #[test]
    fn plain_text_stands_for_itself() {
        assert_eq!(translated("war é-9"), r"war\x{20}é\x{2D}9");
        assert_eq!(translated("a{b} {,}"), r"a\x{7B}b\x{7D}\x{20}{0,}");
        assert_eq!(translated("a?+(?=b)*"), "(?>a?)(?:(?=b)|)");
    }

    #[test]
    fn a_letter_whose_case_is_ignored_is_a_set() {
        let flags = Flags { ignore_case: true, ..Flags::default() };
        let found = translate("is 1", flags).expect("an expression");
        assert_eq!(found.regex, r"[Iiİı][Ssſ]\x{20}1");
    }

    #[test]
    fn what_python_refuses_is_refused() {
        assert_eq!(translated("*a"), "nothing to repeat before `*`");
        assert_eq!(translated("a**"), "nothing to repeat before `*`");
        assert_eq!(translated(r"\b+"), "nothing to repeat before `+`");
        assert_eq!(translated("a{3,2}"), "`{3,2}` ends before it begins");
        assert_eq!(translated("(a"), "it ends inside a group");
        assert_eq!(translated("a)"), "unbalanced `)`");
        assert_eq!(translated("[a"), "it ends inside a class");
        assert_eq!(translated("[z-a]"), "`z-a` ends before it begins");
        assert_eq!(translated(r"\q"), r"unknown escape `\q`");
        assert_eq!(translated(r"(a\1)"), "no group `1` to refer to");
        assert_eq!(translated("(?P<n>a)(?P<n>b)"), "group `n` is defined twice");
        assert_eq!(translated("a(?i)b"), "flags such as `(?i)` may stand at the beginning only");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert_eq!(translated("(?a)b"), "`(?a` is not supported");
        assert_eq!(translated(r"\N{DASH}"), r"`\N` is not supported");
    }
}
