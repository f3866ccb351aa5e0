//! Answers that an earlier evaluation of the same model gave already: a sweep over tasks asks each of them once.

use std::collections::BTreeMap;

use fs_err as fs;
use qpipe_cache::{Claim, Manifest, Store};
use qpipe_nodes::Kind;
use qpipe_nodes::kinds::{EARLIER, Evaluate};
use qpipe_nodes::protocol::Input;
use serde_json::Value;

use super::job::NodeFailure;

/// How many earlier evaluations are looked at.
const LOOKED_AT: usize = 500;
/// Parameters that say which tasks are asked; all others say how.
const WHICH: [&str; 3] = ["tasks", "task_files", "task_groups"];
/// The port of the questions.
const DATA: &str = "data";

/// For each task of the evaluation `manifest` that another one has asked in the same way: that one's artifact, by the task's
/// name, as the worker's input [`EARLIER`]. `None`: there is none, or the node is of another kind.
pub(super) fn answers(
    store: &Store,
    claim: &Claim,
    manifest: &Manifest,
) -> Result<Option<(String, Input)>, NodeFailure> {
    if manifest.kind != Evaluate::NAME {
        return Ok(None);
    }
    let folder = claim.staging().join(EARLIER);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let mut open = names(manifest);
    let mut found = BTreeMap::new();
    for record in store.records_of(&manifest.kind, LOOKED_AT)? {
        if open.is_empty() {
            break;
        }
        if !asks_alike(&record.manifest, manifest) {
            continue;
        }
        let theirs = names(&record.manifest);
        let (shared, rest): (Vec<&str>, Vec<&str>) = open
            .iter()
            .partition(|name| theirs.contains(name) && task(&record.manifest, name) == task(manifest, name));
        let place = folder.join(found.len().to_string());
        // An artifact of which something is gone is of no use, and no harm.
        if !shared.is_empty() && store.materialise(&record.output, &place).is_ok() {
            found.extend(shared.into_iter().map(|name| (name.to_owned(), place.clone())));
            open = rest;
        }
    }
    Ok((!found.is_empty()).then(|| (EARLIER.to_owned(), Input::Map(found))))
}

/// Whether two evaluations differ in nothing but their tasks and the data of these.
fn asks_alike(one: &Manifest, other: &Manifest) -> bool {
    let inputs = |manifest: &Manifest| -> BTreeMap<String, Value> {
        let mut inputs = manifest.inputs.clone();
        inputs.remove(DATA);
        inputs
    };
    let params = |manifest: &Manifest| {
        let mut params = manifest.params.clone();
        if let Value::Object(params) = &mut params {
            WHICH.iter().for_each(|key| drop(params.remove(*key)));
        }
        params
    };
    (one.schema, one.version) == (other.schema, other.version)
        && one.runtime == other.runtime
        && inputs(one) == inputs(other)
        && params(one) == params(other)
}

/// The names of tasks and groups of tasks that an evaluation asks.
fn names(manifest: &Manifest) -> Vec<&str> {
    manifest.params["tasks"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What decides a task's questions: its file, and the digest of its data.
fn task<'a>(manifest: &'a Manifest, name: &str) -> (&'a Value, Option<&'a Value>) {
    let file = &manifest.params["task_files"][name];
    let data = manifest.inputs.get(DATA).and_then(|data| match data {
        Value::Object(map) => map.get(name).or_else(|| map.get(file["group"].as_str().unwrap_or_default())),
        one => Some(one),
    });
    (file, data)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(tasks: Value, data: Value, limit: u64) -> Manifest {
        Manifest {
            schema: 1,
            kind: Evaluate::NAME.to_owned(),
            version: 4,
            params: json!({"tasks": tasks, "limit": limit}),
            inputs: BTreeMap::from([("model".to_owned(), json!("m")), (DATA.to_owned(), data)]),
            runtime: BTreeMap::new(),
        }
    }

    #[test]
    fn evaluations_that_differ_in_their_tasks_ask_alike() {
        let one = manifest(json!(["a"]), json!("d"), 5);
        let more = manifest(json!(["a", "b"]), json!({"a": "d", "b": "e"}), 5);
        assert!(asks_alike(&one, &more));
        assert!(!asks_alike(&one, &manifest(json!(["a"]), json!("d"), 6)));
        assert_eq!(task(&one, "a"), task(&more, "a"));
        assert_ne!(task(&more, "a"), task(&more, "b"));
    }

    #[test]
    fn a_file_of_another_content_is_another_task() {
        let mut one = manifest(json!(["own"]), json!({"ours": "d"}), 5);
        one.params["task_files"] = json!({"own": {"group": "ours", "doc_to_text": "q"}});
        assert_eq!(task(&one, "own").1, Some(&json!("d")));
        let mut other = one.clone();
        assert_eq!(task(&one, "own"), task(&other, "own"));
        other.params["task_files"]["own"]["doc_to_text"] = json!("question");
        assert_ne!(task(&one, "own"), task(&other, "own"));
    }
}
