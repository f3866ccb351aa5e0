//! Why a node runs: the difference between its manifest and the nearest earlier one of the same kind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use qpipe_cache::{Digest, Manifest, Record, Store, StoreError};
use serde_json::Value;

/// How many earlier records are compared; more would cost time and find nothing nearer.
pub(super) const COMPARED: usize = 500;

/// One field in which two manifests differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `params.group_size`, `inputs.model`, `runtime.threads`, `version`.
    pub field: String,
    /// The earlier value; absent if the field is new.
    pub before: Option<Value>,
    /// The present value; absent if the field is gone.
    pub after: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, name) = self.field.split_once('.').unwrap_or(("", &self.field));
        let (what, show): (&str, fn(&Value) -> Option<String>) = match (part, name) {
            ("inputs", _) => ("input ", short_digest),
            // Of a download.
            ("params", "content") => ("", short_digest),
            _ => ("", plain),
        };
        let side = |value: &Option<Value>| value.as_ref().map_or_else(|| Some("none".to_owned()), show);
        match (side(&self.before), side(&self.after)) {
            (Some(before), Some(after)) => write!(f, "{what}`{name}` {before} -> {after}"),
            // Lists would fill the screen and say no more.
            _ => write!(f, "{what}`{name}` changed"),
        }
    }
}

/// Why a node has to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// No record of this kind exists.
    New,
    /// The nearest earlier record differs in these fields.
    Changed {
        /// When that one was made, seconds since 1970.
        since: f64,
        /// The fields.
        differences: Vec<Difference>,
    },
    /// A record exists, but blobs of it are gone or have another size.
    Lost,
    /// The same content was known as files of the user's, which need not be there any more.
    Elsewhere,
    /// The same inputs failed before: what was said then.
    FailedBefore(String),
    /// `--force`.
    Forced,
    /// What its remote source is has to be asked first.
    Unresolved,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Changed { differences, .. } => {
                for (index, difference) in differences.iter().take(3).enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{difference}")?;
                }
                match differences.len() {
                    0..=3 => Ok(()),
                    more => write!(f, ", and {} more", more - 3),
                }
            }
            Self::Lost => f.write_str("stored result is incomplete"),
            Self::Elsewhere => f.write_str("known as files outside of the store"),
            Self::FailedBefore(message) => write!(f, "failed before: {message}"),
            Self::Forced => f.write_str("forced"),
            Self::Unresolved => f.write_str("remote source is not pinned yet"),
        }
    }
}

/// What ran before, as far as a plan compares with it. The records of a kind are read once: thousands of nodes
/// may ask.
#[derive(Debug, Default)]
pub(super) struct History {
    records: RefCell<BTreeMap<String, Rc<[Record]>>>,
}

/// The node that is asked about.
pub(super) struct Subject<'a> {
    pub(super) key: &'a Digest,
    pub(super) manifest: &'a Manifest,
    /// The instance and its pipeline.
    pub(super) node: &'a str,
    pub(super) pipeline: &'a str,
    /// The run that is to compute it.
    pub(super) run: &'a str,
}

impl History {
    /// Why the node has no usable record.
    pub(super) fn explain(&self, store: &Store, subject: &Subject<'_>) -> Result<Reason, StoreError> {
        let kind = &subject.manifest.kind;
        if store.is_recorded(subject.key, kind)? {
            return Ok(Reason::Lost);
        }
        if let Some(kept) = store.failure_of(subject.key)? {
            return Ok(Reason::FailedBefore(kept.message));
        }
        let known = self.records.borrow().get(kind).cloned();
        let records = match known {
            Some(records) => records,
            None => {
                let records: Rc<[Record]> = store.records_of(kind, COMPARED)?.into();
                self.records.borrow_mut().insert(kind.clone(), Rc::clone(&records));
                records
            }
        };
        Ok(nearest(&records, subject).unwrap_or(Reason::New))
    }
}

/// The record with the fewest differing fields; among equals one of the same node, then the newest.
fn nearest(records: &[Record], subject: &Subject<'_>) -> Option<Reason> {
    let rank = |record: &Record| {
        let stranger = !(record.meta.node == subject.node && record.meta.pipeline == subject.pipeline);
        // The same node of the same file is what "it changed" means to the reader, as long as the
        // two have anything in common.
        distance(&record.manifest, subject.manifest) + if stranger { 2 } else { 0 }
    };
    let nearest = records
        .iter()
        // A sibling that this very run made is not what the node was before.
        .filter(|record| record.meta.run != subject.run)
        .map(|record| (rank(record), record))
        .min_by(|(a, x), (b, y)| a.cmp(b).then(y.meta.finished_unix.total_cmp(&x.meta.finished_unix)));
    nearest.map(|(_, record)| Reason::Changed {
        since: record.meta.finished_unix,
        differences: compare(&record.manifest, subject.manifest),
    })
}

/// How many fields [`compare`] lists.
fn distance(before: &Manifest, after: &Manifest) -> usize {
    let map = |before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>| {
        let gone = before.keys().filter(|key| !after.contains_key(*key)).count();
        let one = |(key, after)| before.get(key).map_or(1, |before| value_distance(before, after));
        gone + after.iter().map(one).sum::<usize>()
    };
    usize::from(before.schema != after.schema)
        + usize::from(before.version != after.version)
        + value_distance(&before.params, &after.params)
        + map(&before.inputs, &after.inputs)
        + map(&before.runtime, &after.runtime)
}

fn value_distance(before: &Value, after: &Value) -> usize {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return usize::from(before != after);
    };
    let gone = before.keys().filter(|key| !after.contains_key(*key)).count();
    let one = |(key, after)| before.get(key).map_or(1, |before| value_distance(before, after));
    gone + after.iter().map(one).sum::<usize>()
}

/// Every field in which two manifests differ, in the manifest's order.
pub(super) fn compare(before: &Manifest, after: &Manifest) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut note = |field: &str, before: Value, after: Value| {
        if before != after {
            differences.push(Difference {
                field: field.to_owned(),
                before: Some(before),
                after: Some(after),
            });
        }
    };
    note("schema", before.schema.into(), after.schema.into());
    note("version", before.version.into(), after.version.into());
    walk("params", &before.params, &after.params, &mut differences);
    maps("inputs", &before.inputs, &after.inputs, &mut differences);
    maps("runtime", &before.runtime, &after.runtime, &mut differences);
    differences
}

fn maps(
    at: &str,
    before: &BTreeMap<String, Value>,
    after: &BTreeMap<String, Value>,
    found: &mut Vec<Difference>,
) {
    let as_object = |map: &BTreeMap<String, Value>| {
        Value::Object(map.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    walk(at, &as_object(before), &as_object(after), found);
}

fn walk(at: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    if let (Value::Object(old), Value::Object(new)) = (before, after) {
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let field = format!("{at}.{key}");
            match (old.get(key), new.get(key)) {
                (Some(old), Some(new)) => walk(&field, old, new, found),
                (old, new) => {
                    found.push(Difference { field, before: old.cloned(), after: new.cloned() });
                }
            }
        }
        return;
    }
    found.push(Difference { field: at.to_owned(), before: Some(before.clone()), after: Some(after.clone()) });
}

/// A value in a line of text; `None` for what does not fit into one.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => Some("none".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    }
}

fn short_digest(value: &Value) -> Option<String> {
    value.as_str().map(|digest| digest.chars().take(12).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(group_size: u32, model: &str) -> Manifest {
        Manifest {
            schema: 1,
            kind: "quantize".into(),
            version: 1,
            params: json!({"scheme": "W4A16", "group_size": group_size}),
            inputs: BTreeMap::from([("model".to_owned(), json!(model))]),
            runtime: BTreeMap::new(),
        }
    }

    #[test]
    fn a_changed_parameter_is_named_with_both_values() {
        let differences = compare(&manifest(128, "aa"), &manifest(64, "aa"));
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].to_string(), "`group_size` 128 -> 64");
    }

    #[test]
    fn a_changed_input_is_named_by_its_port() {
        let differences = compare(&manifest(128, "aabbccddeeff00"), &manifest(128, "bb"));
        assert_eq!(differences[0].to_string(), "input `model` aabbccddeeff -> bb");
    }

    #[test]
    fn the_distance_is_the_number_of_differences() {
        let mut other = manifest(64, "bb");
        other.version = 2;
        other.params["lora"] = json!({"rank": 8, "targets": ["q"]});
        other.runtime.insert("threads".to_owned(), json!(2));
        let mut third = other.clone();
        third.params["lora"] = json!({"rank": 16, "targets": ["q"], "alpha": 1});
        third.params.as_object_mut().map(|params| params.remove("scheme"));
        third.inputs.clear();
        third.runtime.insert("threads".to_owned(), json!(4));
        for (before, after) in [(&manifest(64, "aa"), &other), (&other, &third), (&third, &manifest(1, "c"))]
        {
            assert_eq!(distance(before, after), compare(before, after).len(), "{before:?} {after:?}");
        }
        assert_eq!(distance(&third, &third), 0);
    }

    #[test]
    fn long_reasons_are_cut() {
        let differences = (0..5)
            .map(|i| Difference {
                field: format!("params.p{i}"),
                before: Some(json!(0)),
                after: Some(json!(1)),
            })
            .collect();
        let text = Reason::Changed { since: 0.0, differences }.to_string();
        assert!(text.ends_with("`p2` 0 -> 1, and 2 more"), "{text}");
    }
}
