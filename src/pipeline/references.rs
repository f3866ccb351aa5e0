//! Values that name nodes, as they stand in the file.

use serde_json::Value as Json;

use super::error::{Code, Mistake, Mistakes};
use super::source::Span;
use super::substitute::{Scope, alone, is_template};
use super::value::{Data, Entry, Value, describe, find};

/// The name of a node or an instance, and where it stands.
pub(super) type Reference = (String, Span);

/// References written as one text, as a list of texts, or as a variable that stands for either; `None` after
/// a mistake.
pub(super) fn many(value: &Value, scope: Scope<'_>, mistakes: &mut Mistakes) -> Option<Vec<Reference>> {
    match &value.data {
        Data::List(list) => {
            // Each element, so that each one's mistakes are seen.
            let each: Vec<Option<Reference>> = list.iter().map(|item| one(item, scope, mistakes)).collect();
            each.into_iter().collect()
        }
        Data::Text(text) if alone(text).is_some() => match scope.json(value, mistakes)? {
            Json::Array(list) => {
                let mut references = Vec::with_capacity(list.len());
                for item in list {
                    references.push((text_of(item, value, scope, mistakes)?, value.span));
                }
                Some(references)
            }
            single => text_of(single, value, scope, mistakes).map(|text| vec![(text, value.span)]),
        },
        _ => one(value, scope, mistakes).map(|reference| vec![reference]),
    }
}

/// One reference: a text, or a variable that stands for one; `None` after a mistake.
pub(super) fn one(value: &Value, scope: Scope<'_>, mistakes: &mut Mistakes) -> Option<Reference> {
    match &value.data {
        Data::Text(text) if !is_template(text) => Some((text.clone(), value.span)),
        Data::Text(_) => {
            let found = scope.json(value, mistakes)?;
            text_of(found, value, scope, mistakes).map(|text| (text, value.span))
        }
        _ => {
            mistakes.push(not_a_reference(value, scope, value.describe()));
            None
        }
    }
}

fn text_of(found: Json, value: &Value, scope: Scope<'_>, mistakes: &mut Mistakes) -> Option<String> {
    match found {
        Json::String(text) => Some(text),
        other => {
            mistakes.push(not_a_reference(value, scope, describe(&other)));
            None
        }
    }
}

fn not_a_reference(value: &Value, scope: Scope<'_>, found: &str) -> Mistake {
    let message = format!("expected the name of a node, found {found}");
    with_origin(Mistake::new(Code::InvalidValue, value.span, message), value, scope, &[])
}

/// The mistake, and where the value behind a variable is given: among the parameters, or in the `matrix` or
/// the `for_each` of the node's `entries`.
pub(super) fn with_origin(mistake: Mistake, value: &Value, scope: Scope<'_>, entries: &[Entry]) -> Mistake {
    match origin(value, scope, entries) {
        Some(given) => mistake.also(given, "the value is given here"),
        None => mistake,
    }
}

fn origin(value: &Value, scope: Scope<'_>, entries: &[Entry]) -> Option<Span> {
    let Data::Text(text) = &value.data else { return None };
    let mut parts = alone(text)?.split('.');
    match (parts.next()?, parts.next()) {
        ("params", Some(name)) => scope.params.get(name).map(|param| param.given),
        ("matrix", Some(axis)) => {
            find(find(entries, "matrix")?.value.entries(), axis).map(|entry| entry.value.span)
        }
        ("item", None) => {
            let elements = &find(entries, "for_each")?.value;
            let item = scope.item?;
            let means = |element: &&Value| match &element.data {
                Data::Text(name) => {
                    name == item || item.strip_prefix(name.as_str()).is_some_and(|r| r.starts_with('['))
                }
                _ => false,
            };
            match &elements.data {
                Data::List(list) => list.iter().find(means).map(|element| element.span),
                _ => Some(elements.span),
            }
        }
        _ => None,
    }
}
