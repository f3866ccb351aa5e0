//! Writes `results/NAME/`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_cache::replace::{Replacement, sweep};
use qpipe_nodes::kinds::Document;

use super::ReportError;
use super::comparison::Comparison;
use super::harness_files::{self, HarnessAnswers};
use super::lm_eval::file_names;
use super::markdown::{self, MARKDOWN_FILE};
use super::names::{Named, RowName};
use super::recovery;
use super::results_json::{RESULTS_FILE, Results};

/// Name of the folder of answers in `results/NAME/`.
pub const SAMPLES_FOLDER: &str = "samples";

/// Name of the folder of lm-eval's files.
const HARNESS_FOLDER: &str = "lm_eval";

/// Where the answers of a row are.
#[derive(Clone, Debug, Default)]
pub struct RowAnswers {
    /// Those to four-choice questions, which are copied as they are.
    pub samples: Option<PathBuf>,
    /// Those to the questions of lm-eval's tasks.
    pub harness: HarnessAnswers,
}

/// What [`write()`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The files that were missing or differed, in the order in which they were written.
    pub files: Vec<PathBuf>,
}

impl Written {
    /// Whether anything was written.
    pub fn changed(&self) -> bool {
        !self.files.is_empty()
    }
}

/// Writes `results.json`, `report.md`, `samples/INSTANCE.jsonl` and `lm_eval/INSTANCE/` into the folder `out`. `names` and
/// `answers` are in the order of the rows. The document's heading is the comparison's title, else the folder's name.
///
/// Only what is missing or differs is written, all of it beside its place first: a full disk leaves the former files
/// as they were. Answers of rows that are no longer there are removed, and those of earlier evaluations.
///
/// # Errors
/// [`ReportError::Names`] when `names` or `answers` are not the comparison's rows; I/O errors with the path.
pub fn write(
    comparison: &Comparison,
    names: &[RowName],
    answers: &[RowAnswers],
    out: &Path,
) -> Result<Written, ReportError> {
    let rows = comparison.rows.len();
    if names.len() != rows || answers.len() != rows {
        return Err(ReportError::Names { names: names.len(), samples: answers.len(), rows });
    }
    let named = Named::new(comparison, names);
    let mut prepared = Vec::new();
    let folder = out.join(SAMPLES_FOLDER);
    fs::create_dir_all(&folder)?;
    sweep(out);
    sweep(&folder);
    for (name, answers) in names.iter().zip(answers) {
        let Some(source) = &answers.samples else { continue };
        let path = folder.join(sample_file(&name.instance));
        if !same_content(source, &path)? {
            prepared.push(Replacement::new(path, &mut fs::File::open(source)?)?);
        }
    }
    let harness = out.join(HARNESS_FOLDER);
    let mut harness_paths = BTreeSet::new();
    for ((name, answers), row) in names.iter().zip(answers).zip(&comparison.rows) {
        if row.tasks.is_empty() {
            continue;
        }
        let folder = harness.join(name.instance.replace('/', "%2F"));
        fs::create_dir_all(&folder)?;
        sweep(&folder);
        for (file, text) in harness_files::files(row, &name.row, &answers.harness)? {
            let path = folder.join(file);
            harness_paths.insert(path.clone());
            if !holds(&path, text.as_bytes())? {
                prepared.push(Replacement::new(path, &mut text.as_bytes())?);
            }
        }
    }
    let folder_name = out.file_name().map_or_else(|| "Report".into(), |name| name.to_string_lossy());
    let heading = if comparison.title.is_empty() { &folder_name } else { comparison.title.as_str() };
    let document = match comparison.document {
        Document::Table => markdown::render(&named, heading, comparison.table),
        Document::Recovery => recovery::render(comparison, &named, heading),
    };
    for (file, text) in [(MARKDOWN_FILE, document), (RESULTS_FILE, Results::new(&named).to_json()?)] {
        let path = out.join(file);
        if !holds(&path, text.as_bytes())? {
            prepared.push(Replacement::new(path, &mut text.as_bytes())?);
        }
    }
    let files = prepared.into_iter().map(Replacement::put).collect::<Result<_, _>>()?;
    remove_others(&folder, names)?;
    remove_earlier(&harness, &harness_paths)?;
    Ok(Written { files })
}

/// The file name for an instance's answers. A matrix value may hold a separator, which must not open a folder.
fn sample_file(instance: &str) -> String {
    format!("{}.jsonl", instance.replace('/', "%2F"))
}

fn holds(path: &Path, expected: &[u8]) -> io::Result<bool> {
    match fs::read(path) {
        Ok(content) => Ok(content == expected),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the file at `copy` is there and has the bytes of `source`. Lengths are compared first.
fn same_content(source: &Path, copy: &Path) -> io::Result<bool> {
    let length = match fs::metadata(copy) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if fs::metadata(source)?.len() != length {
        return Ok(false);
    }
    Ok(fs::read(source)? == fs::read(copy)?)
}

/// Removes answers of rows that the report no longer has: their names would mislead.
fn remove_others(folder: &Path, names: &[RowName]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let of_row = |row: &RowName| *name == *sample_file(&row.instance);
        if Path::new(&name).extension().is_some_and(|extension| extension == "jsonl")
            && !names.iter().any(of_row)
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes files of lm-eval's names that are not among `current`: each evaluation's have another time in their names. A folder
/// that is empty then is no row's.
fn remove_earlier(harness: &Path, current: &BTreeSet<PathBuf>) -> io::Result<()> {
    if !harness.is_dir() {
        return Ok(());
    }
    for folder in fs::read_dir(harness)? {
        let folder = folder?;
        // What a link of the user's leads to is not ours.
        if !folder.file_type()?.is_dir() {
            continue;
        }
        let folder = folder.path();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let is_ours = entry.file_name().to_str().is_some_and(file_names::is_dated);
            if is_ours && !current.contains(&entry.path()) {
                fs::remove_file(entry.path())?;
            }
        }
        // Fails, as it should, where something is left.
        let _ = std::fs::remove_dir(&folder);
    }
    Ok(())
}
