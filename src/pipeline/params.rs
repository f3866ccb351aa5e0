//! `params:` of the file, and `--set`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value as Json;

use super::error::{Code, Mistake, Mistakes};
use super::nearest::advice;
use super::source::{Source, Sources, Span};
use super::value::{Data, Key, Value};
use super::yaml;

/// The name under which a `--set` is shown.
const SET: &str = "--set";

/// A parameter: its value, and where that stands.
#[derive(Clone, Debug)]
pub(super) struct Param {
    pub(super) value: Json,
    /// The place of the value: in a file, or in a `--set`.
    pub(super) given: Span,
    /// The place of the name in the file.
    pub(super) declared: Span,
}

/// All parameters by name.
pub(super) type Params = BTreeMap<String, Param>;

impl Param {
    pub(super) fn new(key: &Key, value: &Value, mistakes: &mut Mistakes) -> Self {
        reject_variables(value, mistakes);
        Self { value: value.to_json(), given: value.span, declared: key.span }
    }
}

fn reject_variables(value: &Value, mistakes: &mut Mistakes) {
    match &value.data {
        Data::Text(text) if text.contains("${") => mistakes.push(
            Mistake::new(Code::InvalidValue, value.span, "`params` cannot refer to other values")
                .help("Write the value itself; nodes refer to it."),
        ),
        Data::List(list) => list.iter().for_each(|item| reject_variables(item, mistakes)),
        Data::Mapping(entries) => entries.iter().for_each(|entry| reject_variables(&entry.value, mistakes)),
        _ => {}
    }
}

/// Applies `--set NAME=VALUE`, in order. A dotted name sets a value inside a mapping. Unknown names are a
/// mistake unless the files are `incomplete`.
pub(super) fn apply_sets(
    params: &mut Params,
    sets: &[(String, String)],
    incomplete: bool,
    sources: &mut Sources,
    mistakes: &mut Mistakes,
) {
    for (name, text) in sets {
        let whole = format!("{name}={text}");
        let (source, kept) = sources.add(Source::new(SET.to_owned(), PathBuf::new(), whole));
        let before = mistakes.len();
        let base = name.len() + 1;
        let value = yaml::parse(&kept.text()[base..], source, base, mistakes);
        if mistakes.len() > before {
            continue;
        }
        let all = Span { source, start: 0, end: 0 };
        let given = all.part(base, text.len());
        let value = value.unwrap_or(Value { span: given, data: Data::Null });
        reject_variables(&value, mistakes);
        if let Err(mistake) = set(params, name, value.to_json(), given, all)
            && !incomplete
        {
            mistakes.push(mistake);
        }
    }
}

fn set(params: &mut Params, name: &str, value: Json, given: Span, all: Span) -> Result<(), Mistake> {
    let mut parts = name.split('.');
    let first = parts.next().unwrap_or_default();
    if !params.contains_key(first) {
        let known: Vec<&str> = params.keys().map(String::as_str).collect();
        return Err(unknown(all.part(0, first.len()), first, &known, "the file has no parameter"));
    }
    let Some(param) = params.get_mut(first) else { return Ok(()) };
    let mut target = &mut param.value;
    let mut offset = first.len() + 1;
    for part in parts {
        let at = all.part(offset, part.len());
        offset += part.len() + 1;
        let known: Vec<String> =
            target.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
        let Some(inner) = target.as_object_mut().and_then(|map| map.get_mut(part)) else {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            return Err(unknown(at, part, &known, &format!("`{first}` has no value called")));
        };
        target = inner;
    }
    *target = value;
    param.given = given;
    Ok(())
}

fn unknown(at: Span, name: &str, known: &[&str], what: &str) -> Mistake {
    let mistake = Mistake::new(Code::UnknownParam, at, format!("{what} `{name}`"));
    match advice(name, "Parameters", known) {
        Some(advice) => mistake.help(advice),
        None => mistake.help("Declare it under `params`."),
    }
}
