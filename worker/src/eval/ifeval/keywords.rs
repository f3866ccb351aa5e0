//! `keywords`: what must occur, how often, or not at all.
//!
//! A keyword is a regular expression that is looked for in any case and anywhere, inside words too; only a
//! forbidden word is bounded, and that by `\b`.

use super::Check;
use super::arguments::Arguments;
use super::error::IfevalError;
use super::pattern::Pattern;
use crate::eval::python;

/// Every one of `keywords` occurs.
pub(super) fn existence(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let keywords: Vec<Pattern> = arguments
        .texts("keywords")?
        .into_iter()
        .map(|keyword| Pattern::ignoring_case(arguments.id(), "keywords", keyword))
        .collect::<Result<_, _>>()?;
    Ok(Box::new(move |text| {
        for keyword in &keywords {
            if !keyword.occurs(text)? {
                return Ok(false);
            }
        }
        Ok(true)
    }))
}

/// None of `forbidden_words` occurs.
pub(super) fn forbidden_words(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let words: Vec<Pattern> = arguments
        .texts("forbidden_words")?
        .into_iter()
        .map(|word| Pattern::ignoring_case(arguments.id(), "forbidden_words", &format!(r"\b{word}\b")))
        .collect::<Result<_, _>>()?;
    Ok(Box::new(move |text| {
        for word in &words {
            if word.occurs(text)? {
                return Ok(false);
            }
        }
        Ok(true)
    }))
}

/// How often `keyword` occurs.
pub(super) fn frequency(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let keyword = python::strip(arguments.text("keyword")?);
    let keyword = Pattern::ignoring_case(arguments.id(), "keyword", keyword)?;
    let bound = arguments.bound("relation", "frequency")?;
    Ok(Box::new(move |text| Ok(bound.holds(keyword.count(text)?))))
}

/// How often `letter` occurs, in any case. The reference counts a random letter where this is none of the
/// alphabet; here it is counted all the same.
pub(super) fn letter_frequency(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let letter = arguments.text("letter")?.to_lowercase();
    let mut characters = letter.chars();
    let (Some(letter), None) = (characters.next(), characters.next()) else {
        return Err(arguments.wrong("letter", "one character"));
    };
    let bound = arguments.bound("let_relation", "let_frequency")?;
    Ok(Box::new(move |text| {
        let lower = text.to_lowercase();
        Ok(bound.holds(lower.chars().filter(|&character| character == letter).count()))
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::follows;

    #[test]
    fn keywords_are_expressions_and_occur_inside_words() {
        let both = |text| follows("keywords:existence", json!({"keywords": ["caf.", "war"]}), text);
        assert!(both("CAFÉ AWARD"));
        assert!(!both("Award caf"));
    }

    #[test]
    fn a_forbidden_word_is_a_whole_one() {
        let without = |text| follows("keywords:forbidden_words", json!({"forbidden_words": ["late"]}), text);
        assert!(without("Later, élate, late1, late_"));
        assert!(!without("too-LATE!"));
        // A mark is no part of a word for Python.
        assert!(!without("late\u{301}"));
    }

    #[test]
    fn what_is_to_be_counted_need_not_be_a_letter() {
        let count = |letter, text| {
            let kwargs = json!({"letter": letter, "let_frequency": 2, "let_relation": "at least"});
            follows("keywords:letter_frequency", kwargs, text)
        };
        assert!(count("#", "# one\n# two"));
        assert!(!count("#", "# one"));
        assert!(count("E", "eE"));
    }
}
