//! `startend`: how a response begins and ends.

use super::Check;
use super::arguments::Arguments;
use super::error::IfevalError;
use crate::eval::python;

/// The last words are `end_phrase`, in any case; quotation marks may follow.
pub(super) fn end_checker(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let phrase = python::strip(arguments.text("end_phrase")?).to_lowercase();
    Ok(Box::new(move |text| Ok(python::strip(text).trim_matches('"').to_lowercase().ends_with(&phrase))))
}

/// Double quotation marks around everything.
pub(super) fn quotation(_arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    Ok(Box::new(|text| {
        let text = python::strip(text);
        Ok(text.len() > 1 && text.starts_with('"') && text.ends_with('"'))
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::follows;

    #[test]
    fn quotation_marks_and_space_may_follow_the_last_words() {
        let ends = |text| follows("startend:end_checker", json!({"end_phrase": " That is all. "}), text);
        assert!(ends("It is late. THAT IS ALL.\"\" \n"));
        assert!(!ends("It is late. That is all.'"));
        assert!(!ends("It is late. That is all. \""));
    }

    #[test]
    fn one_quotation_mark_is_not_around_anything() {
        let quoted = |text| follows("startend:quotation", json!({}), text);
        assert!(quoted(" \"a\"\n"));
        assert!(quoted("\"\""));
        assert!(!quoted("\""));
        assert!(!quoted("“a”"));
    }
}
