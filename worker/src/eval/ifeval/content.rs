//! `detectable_content`: placeholders and a postscript.

use std::sync::LazyLock;

use regex::Regex;

use super::Check;
use super::arguments::Arguments;
use super::error::IfevalError;
use super::pattern::Pattern;
use crate::eval::python;

static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\[.*?\]").expect("a valid expression"));

/// At least `num_placeholders` texts in square brackets, each on one line.
pub(super) fn number_placeholders(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let least = arguments.count("num_placeholders")?;
    Ok(Box::new(move |text| Ok(PLACEHOLDER.find_iter(text).count() >= least)))
}

/// The postscript's marker occurs, in any case and anywhere. The two markers of the dataset may have one space
/// inside; any other is taken as a regular expression.
pub(super) fn postscript(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let marker = python::strip(arguments.text("postscript_marker")?);
    let pattern = match marker {
        "P.P.S" => r"\s*p\.\s?p\.\s?s.*$".to_owned(),
        "P.S." => r"\s*p\.\s?s\..*$".to_owned(),
        // Lower case letters of an expression can mean something else than capital ones; so it is upstream.
        other => format!(r"\s*{}.*$", other.to_lowercase()),
    };
    let pattern = Pattern::of_lines(arguments.id(), "postscript_marker", &pattern)?;
    Ok(Box::new(move |text| pattern.occurs(&text.to_lowercase())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::follows;

    #[test]
    fn a_placeholder_is_on_one_line() {
        let two =
            |text| follows("detectable_content:number_placeholders", json!({"num_placeholders": 2}), text);
        assert!(two("[name] [[a] b]"));
        assert!(!two("[name] [a\nb]"));
    }

    #[test]
    fn a_marker_has_at_most_one_space_at_each_place() {
        let marked = |marker: &str, text| {
            follows("detectable_content:postscript", json!({"postscript_marker": marker}), text)
        };
        assert!(marked("P.S.", "Bye. p.\u{a0}s. Ok"));
        assert!(!marked("P.S.", "Bye. P.  S. Ok"));
        assert!(!marked("P.S.", "Bye. P.P.S Ok"));
        assert!(marked("P.P.S", "Bye. p. p.s"));
        assert!(marked("PS:", "Bye.\nps: ok"));
    }
}
