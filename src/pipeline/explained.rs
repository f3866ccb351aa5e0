//! What the JSON Schema of a kind says of a key that is absent: its description, and the words it may have.

use serde_json::Value as Json;

use super::value::{Data, Entry, find};

/// What `schema` says of the key `name` of a node that has these `entries`.
pub(super) fn explained(schema: &Json, name: &str, entries: &[Entry]) -> Option<String> {
    let found: Vec<&Json> =
        variants(schema, entries).into_iter().filter_map(|variant| property(schema, variant, name)).collect();
    let description = match found.as_slice() {
        [only] => only.get("description").and_then(Json::as_str),
        _ => None,
    };
    let mut words: Vec<&str> = found.iter().flat_map(|property| words(schema, property)).collect();
    words.dedup();
    // A description may name them all.
    words = match description {
        Some(text) if words.iter().all(|word| text.contains(word)) => Vec::new(),
        _ => words,
    };
    let listed = (!words.is_empty()).then(|| format!("Values: {}.", words.join(", ")));
    let parts: Vec<&str> = description.into_iter().chain(listed.as_deref()).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// The schema itself, or those of its alternatives that the words of `entries` leave.
fn variants<'s>(schema: &'s Json, entries: &[Entry]) -> Vec<&'s Json> {
    let Some(alternatives) = schema.get("oneOf").and_then(Json::as_array) else { return vec![schema] };
    let fits = |variant: &&Json| {
        let properties = variant.get("properties").and_then(Json::as_object);
        properties.into_iter().flatten().all(|(name, property)| {
            match (property.get("const").and_then(Json::as_str), find(entries, name)) {
                (Some(word), Some(entry)) => matches!(&entry.value.data, Data::Text(text) if text == word),
                _ => true,
            }
        })
    };
    alternatives.iter().filter(fits).collect()
}

/// The property `name` of `variant`, which may refer to what has it.
fn property<'s>(schema: &'s Json, variant: &'s Json, name: &str) -> Option<&'s Json> {
    let of = |part: &'s Json| part.get("properties")?.get(name);
    of(variant).or_else(|| of(referred(schema, variant)?))
}

/// What `part` refers to.
fn referred<'s>(schema: &'s Json, part: &Json) -> Option<&'s Json> {
    schema.pointer(part.get("$ref")?.as_str()?.strip_prefix('#')?)
}

/// The words that a value of `property` may be.
fn words<'s>(schema: &'s Json, property: &'s Json) -> Vec<&'s str> {
    let property = referred(schema, property).unwrap_or(property);
    let list = |key: &str| property.get(key).and_then(Json::as_array).into_iter().flatten();
    let single = property.get("const").and_then(Json::as_str);
    single
        .into_iter()
        .chain(list("enum").filter_map(Json::as_str))
        .chain(list("oneOf").filter_map(|one| one.get("const")?.as_str()))
        .collect()
}
