//! The plan as rows: for `qpipe plan`, its JSON, and a run's record.

use serde::Serialize;

use super::planner::State;
use crate::pipeline::Pipeline;

/// One node of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanRow {
    /// Instance.
    pub node: String,
    /// Its kind.
    pub kind: &'static str,
    /// `cached`, `run`, or `unknown` if its key is not known before others ran.
    pub state: &'static str,
    /// Its key, if known.
    pub key: Option<String>,
    /// Why it runs, or what it waits for.
    pub reason: String,
}

/// The rows of the wanted instances, in the file's order.
pub fn plan_rows(pipeline: &Pipeline, states: &[State], wanted: &[bool]) -> Vec<PlanRow> {
    (0..states.len())
        .filter(|&index| wanted[index])
        .map(|index| {
            let instance = &pipeline.instances[index];
            let (state, key, reason) = match &states[index] {
                State::Cached(known) => ("cached", Some(known.key.to_string()), String::new()),
                State::Due(due) => ("run", due.key.map(|key| key.to_string()), due.reason.to_string()),
                State::Blocked(inputs) => {
                    let names: Vec<String> = inputs
                        .iter()
                        .take(3)
                        .map(|&input| format!("`{}`", pipeline.instances[input].id))
                        .collect();
                    let more = if inputs.len() > 3 {
                        format!(" and {} more", inputs.len() - 3)
                    } else {
                        String::new()
                    };
                    ("unknown", None, format!("depends on {}{more}", names.join(", ")))
                }
            };
            PlanRow { node: instance.id.clone(), kind: instance.kind.name, state, key, reason }
        })
        .collect()
}
