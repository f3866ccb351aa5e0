//! What questions and answers of a row are: texts, or indices of choices.
//!
//! What a template prints is a text. As lm-eval does it, digits are read as the index of a choice where there are choices, and an
//! answer in brackets as a list; what a field holds stays what it is.

use serde_json::Value;

use super::literal;
use crate::eval::python::{self, text_of};

/// What a template printed as the question.
pub(super) fn printed_text(printed: &Value, has_choices: bool) -> Value {
    let text = text_of(printed);
    index_in(&text).filter(|_| has_choices).map_or_else(|| text.into(), Value::from)
}

/// What a template printed as the answer.
pub(super) fn printed_target(printed: Value, has_choices: bool) -> Value {
    if printed.is_array() {
        return printed;
    }
    match printed_text(&printed, has_choices) {
        Value::String(text) if text.starts_with('[') && text.ends_with(']') => {
            literal::read(&text).unwrap_or_else(|| text.into())
        }
        text => text,
    }
}

/// The index that a text of digits is.
fn index_in(text: &str) -> Option<u64> {
    text.parse().ok().filter(|index: &u64| index.to_string() == text && python::is_number(text))
}

/// Python's integer that a value is; truth values are such.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(is_true) => Some(i64::from(*is_true)),
        value => value.as_i64(),
    }
}

/// The place of a choice that a value is. `1.0` is one, too: a single such answer makes floats of all in a table. (lm-eval ends
/// with an error there.)
fn index_of(value: &Value) -> Option<i64> {
    let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64);
    integer(value).or_else(|| value.as_f64().and_then(whole))
}

/// `choices[index]`, from the end where it is negative. `None`: it is no index of one.
pub(super) fn choice<'a>(choices: &'a [String], index: &Value) -> Option<&'a String> {
    let index = index_of(index)?;
    let place = match index {
        0.. => usize::try_from(index).ok(),
        _ => choices.len().checked_add_signed(isize::try_from(index).ok()?),
    };
    choices.get(place?)
}

/// The indices of the right choices; beyond the choices, or none, where the data's answer is none of them.
pub(super) fn right_choices(target: &Value, choices: &[String]) -> Vec<usize> {
    let place = |value: &Value| index_of(value).and_then(|index| usize::try_from(index).ok());
    match target {
        Value::Array(targets) => targets.iter().filter_map(place).collect(),
        Value::String(text) => choices.iter().position(|choice| choice == text).into_iter().collect(),
        target => place(target).into_iter().collect(),
    }
}

/// The replies of which any is right.
pub(super) fn right_replies(target: &Value) -> Vec<String> {
    match target {
        Value::Array(targets) => targets.iter().map(text_of).collect(),
        target => vec![text_of(target)],
    }
}

/// What stands behind an example.
pub(super) fn answer(target: &Value, choices: &[String]) -> String {
    let first = match target {
        Value::Array(targets) => targets.first().unwrap_or(&Value::Null),
        target => target,
    };
    choice(choices, first).cloned().unwrap_or_else(|| text_of(first))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is expected is what lm-eval 0.4.13 gives.
    #[test]
    fn digits_and_lists_are_read_where_a_template_printed_them() {
        for (printed, has_choices, expected) in [
            (json!("2"), true, json!(2)),
            (json!("2"), false, json!("2")),
            (json!(2), false, json!("2")),
            (json!("-1"), true, json!("-1")),
            (json!(" 2"), true, json!(" 2")),
            (json!(true), true, json!("True")),
            (json!("['a', \"b\"]"), false, json!(["a", "b"])),
            (json!("[1, 2]"), true, json!([1, 2])),
            (json!("[a, b]"), false, json!("[a, b]")),
            (json!("("), false, json!("(")),
            (json!("["), false, json!("[")),
            (json!([0, 1]), true, json!([0, 1])),
            (json!(1e-7), false, json!("1e-07")),
        ] {
            assert_eq!(printed_target(printed.clone(), has_choices), expected, "{printed}");
        }
        assert_eq!(printed_text(&json!("[1]"), true), json!("[1]"));
        assert_eq!(printed_text(&json!(3), true), json!(3));
    }

    #[test]
    fn texts_are_looked_up_and_numbers_are_places() {
        let choices = ["4", "2", "x"].map(str::to_owned);
        assert_eq!(right_choices(&json!("2"), &choices), [1]);
        assert_eq!(right_choices(&json!(2), &choices), [2]);
        assert_eq!(right_choices(&json!(true), &choices), [1]);
        assert_eq!(right_choices(&json!(1.0), &choices), [1]);
        assert_eq!(right_choices(&json!([0, 2]), &choices), [0, 2]);
        for none in [json!("0"), json!(-1), json!(1.5), json!(null)] {
            assert_eq!(right_choices(&none, &choices), [0_usize; 0]);
        }
        assert_eq!((answer(&json!(-1), &choices), answer(&json!("0"), &choices)), ("x".into(), "0".into()));
        assert_eq!(right_replies(&json!(["a", 1])), ["a", "1"]);
    }
}
