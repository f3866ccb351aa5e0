//! The one way of writing a JSON value as bytes, so that equal values have equal digests.
//!
//! serde_json writes objects in an order that any dependency can change by switching on its
//! `preserve_order` feature, and its text for floats follows its float library. Keys must not move with
//! either, so the text is written here:
//!
//! * no whitespace; object members sorted by the bytes of their names;
//! * strings in UTF-8 with `"` and `\` escaped by a backslash and U+0000 to U+001F as `\u00xx`;
//! * integers in decimal; floats in scientific form with the fewest digits that read back as the same
//!   `f64` (`1e0`, `2.5e-3`), so that a float never looks like an integer;
//! * no NaN, no infinities.

use std::fmt::Write;

use serde_json::{Number, Value};

/// A value that has no canonical text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// A number that no `i64`, `u64` or finite `f64` can hold.
    #[error("the number {0} is out of range")]
    OutOfRange(String),
}

/// The canonical text of `value`.
///
/// # Errors
/// When a number is out of range.
pub fn to_string(value: &Value) -> Result<String, CanonicalError> {
    let mut text = String::new();
    write_value(&mut text, value)?;
    Ok(text)
}

/// Appends the canonical text of `value`.
pub(crate) fn write_value(text: &mut String, value: &Value) -> Result<(), CanonicalError> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Number(number) => write_number(text, number)?,
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_value(text, item)?;
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut members: Vec<(&str, &Value)> =
                map.iter().map(|(name, value)| (name.as_str(), value)).collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            write_object(text, members.into_iter())?;
        }
    }
    Ok(())
}

/// Appends an object whose `members` come sorted by name.
pub(crate) fn write_object<'a>(
    text: &mut String,
    members: impl Iterator<Item = (&'a str, &'a Value)>,
) -> Result<(), CanonicalError> {
    text.push('{');
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(text, name);
        text.push(':');
        write_value(text, value)?;
    }
    text.push('}');
    Ok(())
}

/// Appends a quoted string.
pub(crate) fn write_string(text: &mut String, string: &str) {
    text.push('"');
    let mut plain_from = 0;
    for (index, byte) in string.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        text.push_str(&string[plain_from..index]);
        plain_from = index + 1;
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            _ => write_formatted(text, format_args!("\\u{byte:04x}")),
        }
    }
    text.push_str(&string[plain_from..]);
    text.push('"');
}

fn write_number(text: &mut String, number: &Number) -> Result<(), CanonicalError> {
    if let Some(integer) = number.as_u64() {
        write_formatted(text, format_args!("{integer}"));
    } else if let Some(integer) = number.as_i64() {
        write_formatted(text, format_args!("{integer}"));
    } else {
        match number.as_f64() {
            Some(float) if float.is_finite() => write_formatted(text, format_args!("{float:e}")),
            _ => return Err(CanonicalError::OutOfRange(number.to_string())),
        }
    }
    Ok(())
}

/// Appends a `u32`.
pub(crate) fn write_u32(text: &mut String, integer: u32) {
    write_formatted(text, format_args!("{integer}"));
}

fn write_formatted(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a String does not fail");
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::Digest;

    #[test]
    fn the_text_is_pinned() {
        let value = json!({
            "b": [1, -2, 1.0, 0.0025, 1e300, true, null, u64::MAX],
            "a": {"é": "tab\tquote\"backslash\\ é", "Z": {}, "A": []},
        });
        let text = to_string(&value).unwrap();
        assert_eq!(
            text,
            r#"{"a":{"A":[],"Z":{},"é":"tab\u0009quote\"backslash\\ é"},"b":[1,-2,1e0,2.5e-3,1e300,true,null,18446744073709551615]}"#
        );
        assert_eq!(
            Digest::of(text.as_bytes()).to_string(),
            "0280aadd4444bf1a6f0e6d4d9fd6ca2761625a92f79a8b89b2b96c6d8deee051"
        );
    }

    #[test]
    fn integers_and_floats_differ() {
        assert_ne!(to_string(&json!(1)).unwrap(), to_string(&json!(1.0)).unwrap());
    }

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((".*", inner), 0..6)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_text_reads_back_as_the_value(value in any_value()) {
            let text = to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }

        #[test]
        fn the_order_of_members_does_not_matter(pairs in prop::collection::btree_map(".*", any_value(), 0..8)) {
            let forward: Value = Value::Object(pairs.clone().into_iter().collect());
            let backward: Value = Value::Object(pairs.into_iter().rev().collect());
            prop_assert_eq!(to_string(&forward).unwrap(), to_string(&backward).unwrap());
        }
    }
}
