//! `change_case`: capital and small letters.

use super::arguments::Arguments;
use super::error::IfevalError;
use super::{Check, language, words};
use crate::eval::python;

/// How many words have capital letters only.
pub(super) fn capital_word_frequency(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let bound = arguments.bound("capital_relation", "capital_frequency")?;
    Ok(Box::new(move |text| {
        Ok(bound.holds(words::words(text).iter().filter(|word| python::is_upper(word)).count()))
    }))
}

/// English in capital letters.
pub(super) fn english_capital(_arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    Ok(Box::new(|text| Ok(python::is_upper(text) && language::is_in(text, "en"))))
}

/// English in small letters.
pub(super) fn english_lowercase(_arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    Ok(Box::new(|text| Ok(python::is_lower(text) && language::is_in(text, "en"))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::follows;

    #[test]
    fn a_word_with_marks_or_digits_can_be_one_of_capitals() {
        let three = |text| {
            let kwargs = json!({"capital_frequency": 3, "capital_relation": "at least"});
            follows("change_case:capital_word_frequency", kwargs, text)
        };
        assert!(three("The U.S. AND A1"));
        assert!(three("WELL-KNOWN (AND) CAN'T"));
        assert!(!three("No ONE is HERE 123"));
    }

    #[test]
    fn english_is_of_one_case_with_marks_and_digits_in_it() {
        let capital = |text| follows("change_case:english_capital", json!({}), text);
        assert!(capital("THE TRAIN LEAVES AT 5, AND THE WEATHER IS FINE."));
        assert!(!capital("THE TRAIN LEAVES AT 5, AND THE WEATHER IS fINE."));
        assert!(!capital("123"));
        let lowercase = |text| follows("change_case:english_lowercase", json!({}), text);
        assert!(lowercase("the train leaves at 5, and the weather is fine."));
        assert!(!lowercase("der zug fährt um 5, und das wetter ist schön."));
    }
}
