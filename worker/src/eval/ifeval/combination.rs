//! `combination`: two answers, or the request and an answer.

use super::Check;
use super::arguments::Arguments;
use super::error::IfevalError;
use crate::eval::python;

/// `prompt_to_repeat` comes first, in any case.
pub(super) fn repeat_prompt(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let prompt = python::strip(arguments.text("prompt_to_repeat")?).to_lowercase();
    Ok(Box::new(move |text| Ok(python::strip(text).to_lowercase().starts_with(&prompt))))
}

/// Two different answers with six asterisks between them. More asterisks at either end are passed over.
pub(super) fn two_responses(_arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    Ok(Box::new(|text| {
        let parts: Vec<&str> = text.split("******").map(python::strip).collect();
        let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
        if inner.iter().any(|part| part.is_empty()) {
            return Ok(false);
        }
        let answers: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Ok(matches!(answers[..], [one, other] if one != other))
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::follows;

    #[test]
    fn two_answers_differ_and_have_six_asterisks_between_them() {
        let two = |text| follows("combination:two_responses", json!({}), text);
        assert!(two("a\n******\nb"));
        assert!(two("******a******b******"));
        assert!(!two("a ****** a "));
        assert!(!two("a************b"));
        assert!(!two("a******b******c"));
    }

    #[test]
    fn a_prompt_is_repeated_in_any_case_and_with_its_line_breaks() {
        let repeats =
            |text| follows("combination:repeat_prompt", json!({"prompt_to_repeat": "Say\nwhy. "}), text);
        assert!(repeats("\n SAY\nWHY. Because."));
        assert!(!repeats("Say why. Because."));
    }
}
