//! The parameters of one instance: variables replaced, then read by the kind's own types.

use qpipe_nodes::{KindSpec, ParamError, Parsed, Resources, Target, kind};
use serde_json::{Map, Value as Json};

use super::document::Declaration;
use super::error::{Code, Mistake, Mistakes};
use super::explained::explained;
use super::nearest::{advice, advice_among, nearest};
use super::references::with_origin;
use super::source::Span;
use super::substitute::Scope;
use super::value::{Entry, Value, describe, find, follow};

/// The keys that every kind of node has.
pub(super) const COMMON_KEYS: [&str; 5] = ["kind", "label", "matrix", "for_each", "resources"];

/// What an instance's keys say, besides its references.
#[derive(Debug)]
pub(super) struct Assembled {
    /// `None` after a mistake.
    pub(super) parsed: Option<Parsed>,
    pub(super) label: Option<String>,
    pub(super) resources: Resources,
}

/// Reads the keys of `declaration` in `scope`.
pub(super) fn assemble(declaration: &Declaration, scope: Scope<'_>, mistakes: &mut Mistakes) -> Assembled {
    let mut object = Map::new();
    let mut label = None;
    let mut resources = Resources::default();
    let mut complete = true;
    for Entry { key, value } in &declaration.entries {
        match key.text.as_str() {
            "matrix" | "for_each" => {}
            "label" => label = read_label(value, scope, &declaration.entries, mistakes),
            "resources" => {
                if let Some(read) = read_resources(declaration, key.span, value, scope, mistakes) {
                    resources = read;
                }
            }
            name if declaration.kind.port(name).is_some() => {}
            name => match scope.json(value, mistakes) {
                Some(json) => drop(object.insert(name.to_owned(), json)),
                None => complete = false,
            },
        }
    }
    let keys = declaration.entries.iter().map(|entry| entry.key.text.as_str());
    let ports: Vec<&str> = keys.filter(|key| declaration.kind.port(key).is_some()).collect();
    let parsed = match (declaration.kind.parse)(Json::Object(object), &ports) {
        Ok(parsed) => complete.then_some(parsed),
        Err(errors) => {
            for error in errors {
                // What is absent may be what a mistake above took out.
                if complete || error.target != Target::Missing {
                    report(declaration, error, scope, mistakes);
                }
            }
            None
        }
    };
    Assembled { parsed, label, resources }
}

fn read_label(value: &Value, scope: Scope<'_>, entries: &[Entry], mistakes: &mut Mistakes) -> Option<String> {
    match scope.json(value, mistakes)? {
        Json::String(text) if !text.trim().is_empty() => Some(text),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(value) => Some(value.to_string()),
        other => {
            let message = match other.is_string() {
                true => "`label` is empty".to_owned(),
                false => format!("`label` is text, not {}", describe(&other)),
            };
            let mistake = Mistake::new(Code::InvalidValue, value.span, message);
            mistakes.push(with_origin(mistake, value, scope, entries));
            None
        }
    }
}

fn read_resources(
    declaration: &Declaration,
    key: Span,
    value: &Value,
    scope: Scope<'_>,
    mistakes: &mut Mistakes,
) -> Option<Resources> {
    let json = scope.json(value, mistakes)?;
    if !json.is_object() {
        let message = format!("`resources` is a mapping, not {}", describe(&json));
        mistakes
            .push(Mistake::new(Code::InvalidValue, key, message).help("Write `resources: { threads: 2 }`."));
        return None;
    }
    let (read, mut errors) = kind::read::<Resources>(json);
    if read.as_ref().is_some_and(|resources| resources.threads == Some(0)) {
        errors.push(ParamError::value("threads", "must be at least 1"));
    }
    for mut error in errors {
        error.path.insert(0, "resources".to_owned());
        report(declaration, error, scope, mistakes);
    }
    read
}

/// The names of everything a node of this kind can have.
fn known_keys(kind: &KindSpec) -> Vec<String> {
    let ports = kind.ports.iter().map(|port| port.name.to_owned());
    let common = COMMON_KEYS.iter().map(|key| (*key).to_owned());
    kind.param_names().into_iter().chain(ports).chain(common).collect()
}

/// Whether a key of the node looks like a misspelt `name`: then only that is reported.
pub(super) fn is_misspelt(declaration: &Declaration, name: &str) -> bool {
    let known = known_keys(declaration.kind);
    declaration
        .entries
        .iter()
        .map(|entry| entry.key.text.as_str())
        .filter(|key| !known.iter().any(|known| known == key))
        .any(|key| nearest(key, known.iter().map(String::as_str)) == Some(name))
}

fn report(declaration: &Declaration, error: ParamError, scope: Scope<'_>, mistakes: &mut Mistakes) {
    if error.target == Target::Missing
        && let [absent] = error.alternatives.as_slice()
        && error.path.is_empty()
        && is_misspelt(declaration, absent)
    {
        return;
    }
    let (key, value) = match follow(&declaration.entries, &error.path) {
        Some((key, value)) => (key, Some(value)),
        None => (declaration.name.span, None),
    };
    let (code, at) = match error.target {
        Target::Key => (Code::UnknownKey, key),
        Target::Value => (Code::InvalidValue, value.map_or(key, |value| value.span)),
        Target::Missing => (Code::MissingKey, key),
    };
    let message = match (error.target, error.path.as_slice()) {
        (Target::Missing, []) => {
            format!("{} in `{}`", first_part(&error.message), declaration.name.text) + rest(&error.message)
        }
        (Target::Missing, [.., last]) => format!("{} in `{last}`", error.message),
        (Target::Value, path) => {
            let key = path.iter().rfind(|part| part.parse::<usize>().is_err());
            match key.map(|key| format!("`{key}`")).filter(|key| !error.message.contains(key)) {
                Some(key) => format!("{key}: {}", error.message),
                None => error.message.clone(),
            }
        }
        (Target::Key, _) => error.message.clone(),
    };
    let mut mistake = Mistake::new(code, at, message);
    let help = [help(declaration, &error), error.help.clone()];
    let help: Vec<String> = help.into_iter().flatten().collect();
    if !help.is_empty() {
        mistake = mistake.help(help.join(" "));
    }
    if let (Target::Value, Some(value)) = (error.target, value) {
        mistake = with_origin(mistake, value, scope, &declaration.entries);
    }
    mistakes.push(mistake);
}

/// The words before the first colon.
fn first_part(message: &str) -> &str {
    message.split_once(": ").map_or(message, |(first, _)| first)
}

/// The first colon and what follows.
fn rest(message: &str) -> &str {
    &message[first_part(message).len()..]
}

fn help(declaration: &Declaration, error: &ParamError) -> Option<String> {
    let alternatives: Vec<&str> = error.alternatives.iter().map(String::as_str).collect();
    match (error.target, error.path.as_slice()) {
        (Target::Key, [name]) => {
            let keys = known_keys(declaration.kind);
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let is_free = |key: &&str| find(&declaration.entries, key).is_none();
            let free: Vec<&str> = keys.iter().copied().filter(is_free).collect();
            if keys.contains(&name.as_str()) {
                // A key of the kind, which another of the node's keys excludes.
                return (!alternatives.is_empty())
                    .then(|| format!("Keys that go with the others: {}.", alternatives.join(", ")));
            }
            advice_among(name, &free, &format!("Keys of `{}`", declaration.kind.name), &keys)
        }
        (Target::Key, [.., parent, name]) => advice(name, &format!("Keys of `{parent}`"), &alternatives),
        (Target::Value, _) if !alternatives.is_empty() => {
            let given = error.message.split('`').nth(1).unwrap_or_default();
            nearest(given, alternatives).map(|near| format!("Did you mean `{near}`?"))
        }
        (Target::Missing, []) => {
            let [absent] = alternatives.as_slice() else { return None };
            let schema = (declaration.kind.schema)();
            let explained = explained(schema.as_value(), absent, &declaration.entries)?;
            Some(format!("Add `{absent}: …`. {explained}"))
        }
        _ => None,
    }
}
