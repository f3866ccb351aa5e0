//! JSON as Python's `json.dumps(.., ensure_ascii=False)` writes it.
//!
//! `serde_json` does not do here: the order of an object's keys is part of a document's hash, and its maps keep that
//! order or not as some other crate of the build wishes; figures may be NaN; and floats are spelt otherwise.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::python;

/// A JSON value whose objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a point. Read from a text, one beyond 64 bits is a [`Json::Float`].
    Integer(i128),
    /// A number with a point; `NaN`, `Infinity` and `-Infinity` are written by these names.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object, each key once.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// An object of `entries` in their order. A key that comes again changes the value of the first.
    pub fn object<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        let mut object: Vec<(String, Self)> = Vec::new();
        for (key, value) in entries {
            let key = key.into();
            match object.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => *known = value,
                None => object.push((key, value)),
            }
        }
        Self::Object(object)
    }

    /// On one line: `json.dumps(value, ensure_ascii=False)`.
    pub fn to_line(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, None);
        text
    }

    /// Indented by two: `json.dumps(value, indent=2, ensure_ascii=False)`.
    pub fn to_pretty(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, Some(0));
        text
    }

    /// `depth` is that of the value in an indented text.
    fn write(&self, text: &mut String, depth: Option<usize>) {
        match self {
            Self::Null => text.push_str("null"),
            Self::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
            Self::Integer(number) => text.push_str(&number.to_string()),
            Self::Float(number) => text.push_str(&float(*number)),
            Self::Text(string) => quote(text, string),
            Self::List(items) => {
                let inner = depth.map(|depth| depth + 1);
                enclose(text, ['[', ']'], depth, items.iter(), |text, item| item.write(text, inner));
            }
            Self::Object(entries) => {
                let inner = depth.map(|depth| depth + 1);
                enclose(text, ['{', '}'], depth, entries.iter(), |text, (key, value)| {
                    quote(text, key);
                    text.push_str(": ");
                    value.write(text, inner);
                });
            }
        }
    }
}

fn float(number: f64) -> String {
    match number {
        number if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        number => python::repr(number),
    }
}

fn enclose<T>(
    text: &mut String,
    [open, close]: [char; 2],
    depth: Option<usize>,
    items: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    let is_empty = items.len() == 0;
    let new_line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    text.push(open);
    for (index, item) in items.enumerate() {
        match depth {
            Some(depth) => {
                text.push_str(if index > 0 { "," } else { "" });
                new_line(text, depth + 1);
            }
            None => text.push_str(if index > 0 { ", " } else { "" }),
        }
        write(text, item);
    }
    if let Some(depth) = depth.filter(|_| !is_empty) {
        new_line(text, depth);
    }
    text.push(close);
}

fn quote(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            control if control < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => text.push(other),
        }
    }
    text.push('"');
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Json {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl<T: Into<Self>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl From<&serde_json::Number> for Json {
    fn from(number: &serde_json::Number) -> Self {
        match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Self::Integer(number.into()),
            (None, Some(number), _) => Self::Integer(number.into()),
            (None, None, number) => Self::Float(number.unwrap_or(f64::NAN)),
        }
    }
}

/// In the order that the map has, which is that of the text only if `serde_json` was built to keep it.
impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(flag),
            Value::Number(number) => Self::from(&number),
            Value::String(text) => Self::Text(text),
            Value::Array(items) => items.into(),
            Value::Object(map) => {
                Self::Object(map.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Json::object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"z": 1, "a": [1.0, -1e-05, 18446744073709551615, null, true], "e": {}, "l": [], "s": "é\u0001\b\f\t\"\\/"}"#;

    #[test]
    fn a_line_keeps_order_and_spelling() {
        let value: Json = serde_json::from_str(TEXT).expect("valid JSON");
        assert_eq!(value.to_line(), TEXT);
    }

    #[test]
    fn an_indented_text_leaves_empty_ones_on_their_line() {
        let value: Json = serde_json::from_str(r#"{"b":[1,{"c":{}}],"a":[]}"#).expect("valid JSON");
        let expected = "{\n  \"b\": [\n    1,\n    {\n      \"c\": {}\n    }\n  ],\n  \"a\": []\n}";
        assert_eq!(value.to_pretty(), expected);
    }

    #[test]
    fn figures_that_json_does_not_know_have_pythons_names() {
        let value = Json::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
        assert_eq!(value.to_line(), "[NaN, Infinity, -Infinity]");
    }

    #[test]
    fn a_key_that_comes_again_keeps_its_place() {
        let value: Json = serde_json::from_str(r#"{"a":1,"b":2,"a":3}"#).expect("valid JSON");
        assert_eq!(value.to_line(), r#"{"a": 3, "b": 2}"#);
    }
}
