//! Tasks that an earlier evaluation of the same model has asked in the same way: its answers are these.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use qpipe_nodes::kinds::EARLIER;
use qpipe_nodes::protocol::Level;
use qpipe_nodes::results::{EVALUATION_FILE, Evaluation, TaskResult};
use qpipe_nodes::tasks;

use crate::context::Context;
use crate::error::ActionError;

/// Takes the answers over: the results by task, and of which of `names` they are. An artifact that does not hold what it
/// should is passed over.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn take_over<'a>(
    context: &Context<'_>,
    names: &'a [String],
) -> Result<(BTreeMap<String, TaskResult>, Vec<&'a str>), ActionError> {
    let mut results = BTreeMap::new();
    let mut taken = Vec::new();
    for (name, folder) in context.inputs(EARLIER) {
        let Some(name) = names.iter().find(|asked| **asked == name) else { continue };
        let leaves = tasks::leaves(name).unwrap_or_else(|| vec![name.clone()]);
        let Some(found) = results_in(&folder, &leaves) else { continue };
        for leaf in &leaves {
            let file = format!("{leaf}.jsonl");
            // Not a copy of the file: that of the store is read-only.
            fs::write(context.out()?.join(&file), fs::read(folder.join(&file))?)?;
        }
        context.log(Level::Info, format!("{name}: answered in an earlier evaluation"));
        results.extend(found);
        taken.push(name.as_str());
    }
    Ok((results, taken))
}

fn results_in(folder: &Path, tasks: &[String]) -> Option<BTreeMap<String, TaskResult>> {
    let text = fs::read_to_string(folder.join(EVALUATION_FILE)).ok()?;
    let mut evaluation: Evaluation = serde_json::from_str(&text).ok()?;
    let has_answers = |task: &&String| folder.join(format!("{task}.jsonl")).is_file();
    let result = |task: &String| Some((task.clone(), evaluation.tasks.remove(task)?));
    if tasks.iter().all(|task| has_answers(&task)) { tasks.iter().map(result).collect() } else { None }
}
