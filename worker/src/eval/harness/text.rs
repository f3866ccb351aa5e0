//! Values of rows as Python writes them: `str` and `repr`, with Python's numbers.

use std::fmt::Write as _;

use serde_json::Value;

use crate::eval::python;

/// `str(value)`.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => {
            let mut out = String::new();
            write_repr(&mut out, value);
            out
        }
    }
}

fn write_repr(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            out.push_str(&float(number.as_f64().unwrap_or_default()));
        }
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(out, value);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let _ = write!(out, "{comma}{}: ", quoted(key));
                write_repr(out, value);
            }
            out.push('}');
        }
        Value::String(text) => out.push_str(&quoted(text)),
        plain => out.push_str(&python::repr(plain)),
    }
}

/// `repr(text)`: a character that shows nothing by itself is written as its number.
pub(super) fn quoted(text: &str) -> String {
    let is_shown = |character: char| character.is_ascii() || !is_hidden(character);
    if text.chars().all(is_shown) {
        return python::repr(&text.into());
    }
    let mut out = String::new();
    for character in python::repr(&text.into()).chars() {
        match (is_shown(character), character as u32) {
            (true, _) => out.push(character),
            (_, number @ ..0x100) => drop(write!(out, "\\x{number:02x}")),
            (_, number @ ..0x1_0000) => drop(write!(out, "\\u{number:04x}")),
            (_, number) => drop(write!(out, "\\U{number:08x}")),
        }
    }
    out
}

/// Whether `str.isprintable` is false of it: controls, formats, private and unknown characters, and separators.
fn is_hidden(character: char) -> bool {
    static HIDDEN: std::sync::LazyLock<regex::Regex> =
        std::sync::LazyLock::new(|| regex::Regex::new(r"^[\p{C}\p{Z}]$").expect("a constant pattern"));
    HIDDEN.is_match(character.encode_utf8(&mut [0; 4]))
}

/// `repr(number)`: the shortest digits that mean it, with an exponent of two digits or more below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    if !number.is_finite() {
        let words = if number.is_nan() { "nan" } else { "inf" };
        return format!("{}{words}", if number == f64::NEG_INFINITY { "-" } else { "" });
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if number != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{number:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is expected is what `repr` of Python 3.11 gives.
    #[test]
    fn numbers_are_written_as_in_python() {
        for (number, expected) in [
            (1e-7, "1e-07"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (0.0001, "0.0001"),
            (0.000_012, "1.2e-05"),
            (0.1, "0.1"),
            (100.0, "100.0"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (123_456.789, "123456.789"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn values_are_written_as_in_python() {
        let value = json!({"a": [1, 2.5e-9, true, null], "b": "it's", "c": {"d": "x\u{a0}\u{200b}é"}});
        let expected = r#"{'a': [1, 2.5e-09, True, None], 'b': "it's", 'c': {'d': 'x\xa0\u200bé'}}"#;
        assert_eq!(text_of(&value), expected);
        assert_eq!(text_of(&json!("it's\u{a0}")), "it's\u{a0}");
        assert_eq!(text_of(&json!(18_446_744_073_709_551_615_u64)), "18446744073709551615");
    }
}
