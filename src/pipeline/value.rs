//! The tree that a YAML text is read into: every key and every value knows its place.

use serde_json::{Number, Value as Json};

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
        describe(&self.to_json())
    }

    /// The entries of a mapping.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The same value as JSON, without the places.
    pub(super) fn to_json(&self) -> Json {
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

/// What a JSON value is, with its article.
pub(super) fn describe(value: &Json) -> &'static str {
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a mapping",
    }
}

/// Where `path`, of keys and of indices into lists, leads from `entries`, as far as the file goes: behind a variable there are no
/// places. `None` if not even its beginning is there. The first is the place of the last key, or of the element of a list.
pub(super) fn follow<'a>(entries: &'a [Entry], path: &[String]) -> Option<(Span, &'a Value)> {
    let mut place: Option<(Span, &Value)> = None;
    let mut entries = entries;
    for part in path {
        if let Some(found) = find(entries, part) {
            place = Some((found.key.span, &found.value));
        } else if let Some(Data::List(list)) = place.map(|(_, value)| &value.data)
            && let Some(element) = part.parse::<usize>().ok().and_then(|index| list.get(index))
        {
            place = Some((element.span, element));
        } else {
            break;
        }
        entries = place.map_or(&[], |(_, value)| value.entries());
    }
    place
}

/// The entry called `name`.
pub(super) fn find<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key.text == name)
}
