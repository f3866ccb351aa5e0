//! The plan as rows: for `qpipe plan`, its JSON, and a run's record.

use std::borrow::Cow;

use qpipe_cache::Digest;
use serde::Serialize;

use super::planner::State;
use crate::pipeline::Pipeline;

/// One node of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanRow<'a> {
    /// Instance.
    pub node: &'a str,
    /// Its kind.
    pub kind: &'static str,
    /// `cached`, `run`, or `unknown` if its key is not known before others ran.
    pub state: &'static str,
    /// Its key, if known.
    pub key: Option<Digest>,
    /// Why it runs, or what it waits for.
    pub reason: Cow<'static, str>,
}

/// The rows of the wanted instances, in the file's order.
pub fn plan_rows<'a>(pipeline: &'a Pipeline, states: &[State], wanted: &[bool]) -> Vec<PlanRow<'a>> {
    (0..states.len())
        .filter(|&index| wanted[index])
        .map(|index| {
            let instance = &pipeline.instances[index];
            let (state, key, reason) = match &states[index] {
                State::Cached(known) => ("cached", Some(known.key), Cow::Borrowed("")),
                State::Due(due) => ("run", due.key, due.reason.to_string().into()),
                State::Blocked(inputs) => ("unknown", None, waits_for(pipeline, inputs).into()),
            };
            PlanRow { node: &instance.id, kind: instance.kind.name, state, key, reason }
        })
        .collect()
}

fn waits_for(pipeline: &Pipeline, inputs: &[usize]) -> String {
    let names: Vec<String> =
        inputs.iter().take(3).map(|&input| format!("`{}`", pipeline.instances[input].id)).collect();
    let more = if inputs.len() > 3 { format!(" and {} more", inputs.len() - 3) } else { String::new() };
    format!("depends on {}{more}", names.join(", "))
}
