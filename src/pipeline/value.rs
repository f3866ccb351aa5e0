//! The tree that a YAML text is read into: every key and every value knows its place.

use serde_json::Number;

use super::source::Span;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) span: Span,
    pub(super) data: Data,
}

/// What a value is, by YAML 1.2's core schema.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Value>),
    Mapping(Vec<Entry>),
}

/// One key of a mapping with its value. No two entries of a mapping have the same key.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) value: Value,
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) span: Span,
}

impl Value {
    /// What it is, with its article: "a list".
    pub(super) fn describe(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "true or false",
            Data::Number(_) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Mapping(_) => "a mapping",
        }
    }

    /// The entries of a mapping.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The same value as JSON, without the places.
    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.data {
            Data::Null => Json::Null,
            Data::Bool(value) => Json::Bool(*value),
            Data::Number(value) => Json::Number(value.clone()),
            Data::Text(text) => Json::String(text.clone()),
            Data::List(list) => Json::Array(list.iter().map(Self::to_json).collect()),
            Data::Mapping(entries) => {
                Json::Object(entries.iter().map(|e| (e.key.text.clone(), e.value.to_json())).collect())
            }
        }
    }
}

/// The entry called `name`.
pub(super) fn find<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key.text == name)
}
