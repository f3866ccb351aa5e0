//! Answers that an earlier evaluation of the same model gave already: a sweep over tasks asks each of them once.

use std::collections::BTreeMap;

use fs_err as fs;
use qpipe_cache::{Claim, Manifest, Store};

use qpipe_nodes::kinds::{EARLIER, Evaluate};
use qpipe_nodes::protocol::Input;
use qpipe_nodes::{Kind, tasks};
use serde_json::Value;

use super::job::NodeFailure;

/// How many earlier evaluations are looked at.
const LOOKED_AT: usize = 500;
/// Parameters that say which tasks are asked; all others say how.
const WHICH: [&str; 3] = ["tasks", "task_files", "task_groups"];
/// The port of the questions.
const DATA: &str = "data";

/// For each task of the evaluation `manifest` that another one has asked in the same way, those of groups one by one: that one's
/// artifact, by the task's name, as the worker's input [`EARLIER`]. `None`: there is none, or the node is of another kind.
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
    let mut open = asked(manifest);
    let mut found = BTreeMap::new();
    for record in store.records_of(&manifest.kind, LOOKED_AT)? {
        if open.is_empty() {
            break;
        }
        if !asks_alike(&record.manifest, manifest) {
            continue;
        }
        let theirs = asked(&record.manifest);
        let is_theirs = |(task, how): &(&String, &How<'_>)| theirs.get(*task) == Some(*how);
        let shared: Vec<String> = open.iter().filter(is_theirs).map(|(task, _)| task.clone()).collect();
        let place = folder.join(found.len().to_string());
        // An artifact of which something is gone is of no use, and no harm.
        if !shared.is_empty() && store.materialise(&record.output, &place).is_ok() {
            for task in shared {
                open.remove(&task);
                found.insert(task, place.clone());
            }
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

/// What decides a task's questions: its file, and the digest of its data.
type How<'a> = (Value, Option<&'a Value>);

/// The tasks that an evaluation asks, those of groups one by one. Of two entries that hold a task the first one asks it.
fn asked(manifest: &Manifest) -> BTreeMap<String, How<'_>> {
    let mut asked = BTreeMap::new();
    for name in manifest.params["tasks"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let mut file = manifest.params["task_files"][name].clone();
        // Says where data is looked for, and nothing of the questions.
        let group = file.as_object_mut().and_then(|file| file.remove("group"));
        let data = manifest.inputs.get(DATA).and_then(|data| match data {
            Value::Object(map) => map.get(name).or_else(|| map.get(group.as_ref().and_then(Value::as_str)?)),
            one => Some(one),
        });
        let leaves = if file.is_null() { tasks::leaves(name) } else { None };
        for leaf in leaves.unwrap_or_else(|| vec![name.to_owned()]) {
            asked.entry(leaf).or_insert_with(|| (file.clone(), data));
        }
    }
    asked
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
        let one = manifest(json!(["piqa"]), json!("d"), 5);
        let more = manifest(json!(["piqa", "boolq"]), json!({"piqa": "d", "boolq": "e"}), 5);
        assert!(asks_alike(&one, &more));
        assert!(!asks_alike(&one, &manifest(json!(["piqa"]), json!("d"), 6)));
        assert_eq!(asked(&one)["piqa"], asked(&more)["piqa"]);
        assert_ne!(asked(&more)["piqa"], asked(&more)["boolq"]);
    }

    #[test]
    fn a_task_is_that_of_the_first_entry_that_holds_it() {
        let one = manifest(json!(["mmlu_anatomy", "mmlu"]), json!({"mmlu_anatomy": "b", "mmlu": "a"}), 5);
        let other = manifest(json!(["mmlu"]), json!({"mmlu": "a"}), 5);
        assert_ne!(asked(&one)["mmlu_anatomy"], asked(&other)["mmlu_anatomy"]);
        assert_eq!(asked(&one)["mmlu_virology"], asked(&other)["mmlu_virology"]);
        assert_eq!(asked(&other).len(), 57);
    }

    #[test]
    fn a_file_of_another_content_is_another_task() {
        let mut one = manifest(json!(["own"]), json!({"ours": "d"}), 5);
        one.params["task_files"] = json!({"own": {"group": "ours", "doc_to_text": "q"}});
        assert_eq!(asked(&one)["own"].1, Some(&json!("d")));
        let mut other = one.clone();
        other.params["task_files"]["own"]["doc_to_text"] = json!("question");
        assert_ne!(asked(&one)["own"], asked(&other)["own"]);
        let mut alone = manifest(json!(["own"]), json!("d"), 5);
        alone.params["task_files"] = json!({"own": {"doc_to_text": "q"}});
        assert_eq!(asked(&one)["own"], asked(&alone)["own"], "in a group or not");
    }
}
