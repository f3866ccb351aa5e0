//! Which instances a command is about: `--only`, `--force`, `explain NODE`.

use super::error::PlanError;
use super::planner::inputs_of;
use crate::pipeline::{Pipeline, nearest};

/// The instances that `name` means: one instance, or all of a group.
pub fn find(pipeline: &Pipeline, name: &str) -> Result<Vec<usize>, PlanError> {
    let found: Vec<usize> = (0..pipeline.instances.len())
        .filter(|&index| pipeline.instances[index].id == name || pipeline.instances[index].group == name)
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names = pipeline.instances.iter().flat_map(|instance| [&instance.id, &instance.group]);
    let nearest = nearest(name, names.map(String::as_str)).map(str::to_owned);
    Err(PlanError::UnknownNode { name: name.to_owned(), nearest })
}

/// Marks the instances that `names` mean; all of them if there are no names.
pub fn marked(pipeline: &Pipeline, names: &[String], default: bool) -> Result<Vec<bool>, PlanError> {
    let mut marks = vec![default && names.is_empty(); pipeline.instances.len()];
    for name in names {
        for index in find(pipeline, name)? {
            marks[index] = true;
        }
    }
    Ok(marks)
}

/// Adds everything that the marked instances need.
pub fn with_ancestors(pipeline: &Pipeline, mut marks: Vec<bool>) -> Vec<bool> {
    for &index in pipeline.order.iter().rev() {
        if marks[index] {
            for input in inputs_of(&pipeline.instances[index]) {
                marks[input] = true;
            }
        }
    }
    marks
}
