//! Values of rows as Python writes them: `str` and `repr`, with Python's numbers.

use std::fmt::Write as _;

use serde_json::Value;

/// `str(value)`.
pub(in crate::eval) fn text_of(value: &Value) -> String {
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
        Value::Null => out.push_str("None"),
        Value::Bool(is_true) => out.push_str(if *is_true { "True" } else { "False" }),
        Value::Number(number) => out.push_str(&number.to_string()),
    }
}

/// `repr(text)`: in single quotes, unless the text has such and no double ones. A character that shows nothing by itself is
/// written as its number.
pub(in crate::eval) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            character if character == quote => out.extend(['\\', quote]),
            ' '..='~' => out.push(character),
            character if is_hidden(character) => {
                let _ = match character as u32 {
                    number @ ..0x100 => write!(out, "\\x{number:02x}"),
                    number @ ..0x1_0000 => write!(out, "\\u{number:04x}"),
                    number => write!(out, "\\U{number:08x}"),
                };
            }
            character => out.push(character),
        }
    }
    out.push(quote);
    out
}

/// `repr(bytes)`.
pub(in crate::eval) fn bytes(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut out = format!("b{quote}");
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte if byte == quote as u8 => out.extend(['\\', quote]),
            b' '..=b'~' => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(quote);
    out
}

/// Whether `str.isprintable` is false of it: controls, formats, private and unknown characters, and separators.
fn is_hidden(character: char) -> bool {
    static HIDDEN: std::sync::LazyLock<regex::Regex> =
        std::sync::LazyLock::new(|| regex::Regex::new(r"^[\p{C}\p{Z}]$").expect("a constant pattern"));
    HIDDEN.is_match(character.encode_utf8(&mut [0; 4]))
}

/// `repr(number)`: the shortest digits that mean it, with an exponent of two digits or more below 1e-4 and from 1e16 on.
pub(in crate::eval) fn float(number: f64) -> String {
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
    fn bytes_are_written_as_in_python() {
        assert_eq!(bytes(b"a\n\x00\xff\\"), r"b'a\n\x00\xff\\'");
        assert_eq!(bytes(b"it's"), "b\"it's\"");
        assert_eq!(bytes(b"'\""), r#"b'\'"'"#);
    }

    #[test]
    fn texts_are_quoted_as_in_python() {
        for (text, expected) in [
            ("it's \"so\"\n", r#"'it\'s "so"\n'"#),
            ("it's", "\"it's\""),
            ("\\\t\r\u{1}\u{7f}", r"'\\\t\r\x01\x7f'"),
            ("\u{a0}\u{2028}\u{e0001}é😀", r"'\xa0\u2028\U000e0001é😀'"),
        ] {
            assert_eq!(quoted(text), expected);
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
