//! Reports leave the store here: names are put in, and the files stand in `results/NAME/`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use qpipe_cache::Store;
use qpipe_nodes::Kind;
use qpipe_nodes::kinds::Report;
use qpipe_nodes::protocol::Failure;

use super::job::NodeFailure;
use crate::plan::{Known, Planner, Row};
use crate::report::{self, Comparison, REPORT_FILE, RowAnswers, RowName};

/// A report that stands in its folder.
#[derive(Clone, Debug)]
pub struct Published {
    /// The report node.
    pub node: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its table for a terminal.
    pub table: String,
    /// Whether files were written; false if they were all there already.
    pub written: bool,
}

/// Writes every known report among the `wanted` instances; a cached one again where its folder lacks it.
pub(super) fn publish(
    planner: &Planner<'_>,
    known: &[Option<Arc<Known>>],
    wanted: &[bool],
    results: &Path,
) -> Vec<(usize, Result<Published, NodeFailure>)> {
    let pipeline = planner.pipeline;
    let reports: Vec<usize> = (0..pipeline.instances.len())
        .filter(|&index| pipeline.instances[index].kind.name == Report::NAME)
        .collect();
    let folder = results.join(&pipeline.name);
    let several = reports.len() > 1;
    reports
        .into_iter()
        .filter(|&index| wanted[index])
        .filter_map(|index| {
            let result = known[index].as_ref()?;
            let folder = if several { folder.join(&pipeline.instances[index].id) } else { folder.clone() };
            Some((index, publish_one(planner, index, result, known, &folder)))
        })
        .collect()
}

fn publish_one(
    planner: &Planner<'_>,
    index: usize,
    result: &Known,
    known: &[Option<Arc<Known>>],
    folder: &Path,
) -> Result<Published, NodeFailure> {
    let broken = |message: String| NodeFailure::new(Failure::Surroundings, message, None);
    let entry = result
        .output
        .files
        .get(REPORT_FILE)
        .ok_or_else(|| broken(format!("the stored report has no {REPORT_FILE}")))?;
    let blob = planner.store.blob_path(&entry.digest);
    let mut comparison = Comparison::read(&blob).map_err(|error| broken(error.to_string()))?;
    if comparison.title.is_empty() {
        comparison.title.clone_from(&planner.pipeline.name);
    }
    let (rows, order) = planner.report_rows(index, known)?;
    // The artifact is in an order of its own; the reader gets the file's.
    let mut places = vec![0; order.len()];
    for (stored, &row) in order.iter().enumerate() {
        places[row] = stored;
    }
    let comparison = comparison.reordered(&places);
    let names: Vec<RowName> = rows.iter().map(|row| row_name(planner, row)).collect();
    let answers: Vec<RowAnswers> = rows.iter().map(|row| answers(planner.store, known, row)).collect();
    let written = report::write(&comparison, &names, &answers, folder)?;
    Ok(Published {
        node: planner.pipeline.instances[index].id.clone(),
        folder: folder.to_owned(),
        table: report::table(&comparison, &names),
        written: written.changed(),
    })
}

fn row_name(planner: &Planner<'_>, row: &Row) -> RowName {
    RowName { row: row.name.clone(), instance: planner.pipeline.instances[row.evaluation].id.clone() }
}

/// Where a row's answers are: in blobs, whose names are their digests.
fn answers(store: &Store, known: &[Option<Arc<Known>>], row: &Row) -> RowAnswers {
    let mut answers = RowAnswers::default();
    let Some(known) = &known[row.evaluation] else { return answers };
    for (name, entry) in &known.output.files {
        let path = store.blob_path(&entry.digest);
        match name.strip_suffix(".jsonl") {
            Some("mcqa") => answers.samples = Some(path),
            Some(task) => {
                answers.harness.tasks.insert(task.to_owned(), path);
            }
            None => answers.harness.time = answers.harness.time.max(modified(&path)),
        }
    }
    answers
}

/// When a blob was written, in seconds since 1970.
fn modified(path: &Path) -> f64 {
    let time = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0.0, |since| since.as_secs_f64())
}
