//! The rows of a report: which evaluation belongs to which model, what it is compared with, and its name.

use qpipe_cache::Digest;

use super::error::PlanError;
use crate::pipeline::{Binding, Pipeline};

/// One row. Indices are instances of the pipeline, except `baseline`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The evaluated model.
    pub model: usize,
    /// Its evaluation.
    pub evaluation: usize,
    /// Its benchmarks, in the order of the report's list.
    pub benchmarks: Vec<usize>,
    /// The row it is compared with: an index into the list of rows.
    pub baseline: Option<usize>,
    /// The model's label.
    pub label: Option<String>,
    /// The row's name in results.json: the label, else the model's instance.
    pub name: String,
}

/// The rows of the report `report`, in the file's order.
pub(super) fn rows(pipeline: &Pipeline, report: usize) -> Result<Vec<Row>, PlanError> {
    let instance = &pipeline.instances[report];
    let list = |port: &str| match instance.inputs.get(port) {
        Some(Binding::Many(list)) => list.clone(),
        Some(Binding::One(one)) => vec![*one],
        _ => Vec::new(),
    };
    let mut rows: Vec<Row> = Vec::new();
    for evaluation in list("evaluations") {
        let Some(model) = input(pipeline, evaluation, "model") else { continue };
        let label = pipeline.instances[model].label.clone();
        let name = label.clone().unwrap_or_else(|| pipeline.instances[model].id.clone());
        if rows.iter().any(|row| row.name == name) {
            return Err(PlanError::DuplicateRow { name });
        }
        rows.push(Row { model, evaluation, benchmarks: Vec::new(), baseline: None, label, name });
    }
    for benchmark in list("benchmarks") {
        let Some(model) = input(pipeline, benchmark, "model") else { continue };
        match rows.iter_mut().find(|row| row.model == model) {
            Some(row) => row.benchmarks.push(benchmark),
            None => {
                return Err(PlanError::BenchmarkWithoutRow {
                    benchmark: pipeline.instances[benchmark].id.clone(),
                    model: pipeline.instances[model].id.clone(),
                });
            }
        }
    }
    let row_of = |model: usize| rows.iter().position(|row| row.model == model);
    let baselines: Vec<Option<usize>> = match input(pipeline, report, "baseline") {
        Some(model) => {
            let baseline = row_of(model).ok_or_else(|| PlanError::BaselineNotEvaluated {
                model: pipeline.instances[model].id.clone(),
            })?;
            (0..rows.len()).map(|row| (row != baseline).then_some(baseline)).collect()
        }
        None => rows
            .iter()
            .map(|row| {
                // What it was made from; past ancestors that nobody evaluated.
                let mut ancestor = input(pipeline, row.model, "model");
                while let Some(model) = ancestor {
                    if let Some(found) = row_of(model) {
                        return Some(found);
                    }
                    ancestor = input(pipeline, model, "model");
                }
                None
            })
            .collect(),
    };
    for (row, baseline) in rows.iter_mut().zip(baselines) {
        row.baseline = baseline;
    }
    Ok(rows)
}

/// A permutation of `rows` that does not depend on the order or the names of nodes: by what was measured.
/// `content` tells an instance's content digest.
pub(super) fn canonical_order(rows: &[Row], content: &dyn Fn(usize) -> Digest) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_cached_key(|&row| {
        let row = &rows[row];
        let benchmarks: Vec<Digest> = row.benchmarks.iter().map(|&index| content(index)).collect();
        (content(row.evaluation), benchmarks, row.label.clone())
    });
    order
}

fn input(pipeline: &Pipeline, node: usize, port: &str) -> Option<usize> {
    match pipeline.instances[node].inputs.get(port) {
        Some(Binding::One(index)) => Some(*index),
        _ => None,
    }
}
