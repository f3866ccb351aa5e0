//! Tasks that an earlier evaluation of the same model has asked in the same way: its answers are these.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use qpipe_nodes::kinds::EARLIER;
use qpipe_nodes::protocol::Level;
use qpipe_nodes::results::{EVALUATION_FILE, Evaluation, TaskResult};

use crate::context::Context;
use crate::error::ActionError;

/// Takes answers over: the results by task. An artifact that does not hold what it should is passed over.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn take_over(context: &Context<'_>) -> Result<BTreeMap<String, TaskResult>, ActionError> {
    let mut results = BTreeMap::new();
    for (task, folder) in context.inputs(EARLIER) {
        let Some(result) = result_of(&task, &folder) else { continue };
        let file = format!("{task}.jsonl");
        // Not a copy of the file: that of the store is read-only.
        fs::write(context.out()?.join(&file), fs::read(folder.join(&file))?)?;
        results.insert(task, result);
    }
    if !results.is_empty() {
        let tasks: Vec<&str> = results.keys().map(String::as_str).collect();
        context.log(Level::Info, format!("answered in an earlier evaluation: {}", tasks.join(", ")));
    }
    Ok(results)
}

fn result_of(task: &str, folder: &Path) -> Option<TaskResult> {
    let text = fs::read_to_string(folder.join(EVALUATION_FILE)).ok()?;
    let mut evaluation: Evaluation = serde_json::from_str(&text).ok()?;
    let has_answers = folder.join(format!("{task}.jsonl")).is_file();
    evaluation.tasks.remove(task).filter(|_| has_answers)
}
