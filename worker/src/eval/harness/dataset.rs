//! Which rows of the data are a task's: its split, and its part of the split.
//!
//! Data is a file or a folder. A file belongs to the split whose name is a word of the file's name or of a folder's that it
//! is in: `test.jsonl`, `test-00000-of-00001.parquet`, `validation/part-0.json`. A single file without such a name is what is
//! asked; a task that has a part (a subject of MMLU) takes the rows whose `subject` names it, or the files in the folder of
//! that name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::spec::Spec;
use crate::eval::error::EvalError;
use crate::eval::rows::{Data, DataRow};

/// Other words for the split `validation`, where no file is called that.
const VALIDATION: [&str; 3] = ["valid", "val", "dev"];
/// The field that names a row's part.
const PART_FIELD: &str = "subject";

/// The data of a task.
pub(super) struct Dataset<'a> {
    data: &'a Data,
    files: Vec<&'a Path>,
    spec: &'a Spec,
}

impl<'a> Dataset<'a> {
    /// The files of `data` that are the task's.
    pub(super) fn new(data: &'a Data, spec: &'a Spec) -> Self {
        let mut files: Vec<&Path> = data.files().iter().map(PathBuf::as_path).collect();
        if let Some(part) = &spec.part {
            let is_in = |file: &&Path| words_of_folders(data.path(), file).any(|word| word == *part);
            if files.iter().any(is_in) {
                files.retain(is_in);
            }
        }
        Self { data, files, spec }
    }

    /// The rows that are asked, prepared as the task says.
    ///
    /// # Errors
    /// When there is none, or the task cannot read one.
    pub(super) fn asked(&self) -> Result<Vec<DataRow>, EvalError> {
        let split = self.spec.asked_split();
        let files = match self.files_of(split) {
            files if files.is_empty() && self.files.len() == 1 => self.files.clone(),
            files => files,
        };
        let rows = self.read(&files)?;
        if rows.is_empty() {
            let part = self.spec.part.as_ref().map(|part| format!(", {PART_FIELD} `{part}`"));
            return Err(EvalError::NoRows {
                path: self.data.path().to_owned(),
                task: self.spec.name.clone(),
                wanted: format!(" (split `{split}`{})", part.unwrap_or_default()),
            });
        }
        Ok(rows)
    }

    /// The rows that examples are taken from; none where the data lacks the split.
    ///
    /// # Errors
    /// When the task cannot read one.
    pub(super) fn examples(&self) -> Result<Arc<Vec<Value>>, EvalError> {
        let rows = self.read(&self.files_of(self.spec.example_split()))?;
        Ok(Arc::new(rows.into_iter().map(|row| Value::Object(row.fields)).collect()))
    }

    fn files_of(&self, split: &str) -> Vec<&'a Path> {
        let called = |name: &str| -> Vec<&'a Path> {
            self.files
                .iter()
                .filter(|file| {
                    words(&stem(file)).any(|word| word == name) || in_folder(self.data.path(), file, name)
                })
                .copied()
                .collect()
        };
        let mut found = called(split);
        if split == "validation" {
            for other in VALIDATION {
                if found.is_empty() {
                    found = called(other);
                }
            }
        }
        found
    }

    fn read(&self, files: &[&Path]) -> Result<Vec<DataRow>, EvalError> {
        let files: Vec<_> = files.iter().map(|file| self.data.rows(file)).collect::<Result<_, _>>()?;
        let rows = || files.iter().flat_map(|rows| rows.iter());
        let part = self.spec.part.as_deref();
        let is_of_part = |row: &DataRow| part_of(row).is_none_or(|of| of.as_str() == part);
        // What a task file calls a part may be a name that only the Hub knows.
        let is_divided =
            !self.spec.part_may_be_absent || rows().any(|row| part_of(row).is_some() && is_of_part(row));
        let mut all = Vec::new();
        for row in rows().filter(|row| part.is_none() || !is_divided || is_of_part(row)) {
            let mut row = row.clone();
            if let Some(prepare) = self.spec.prepare {
                prepare(&mut row.fields).map_err(|problem| EvalError::Rule {
                    place: row.place.clone(),
                    task: self.spec.name.clone(),
                    rule: "process_docs",
                    problem,
                    origin: None,
                })?;
            }
            all.push(row);
        }
        Ok(all)
    }
}

/// What a row says that it is part of.
fn part_of(row: &DataRow) -> Option<&Value> {
    row.fields.get(PART_FIELD).filter(|part| !part.is_null())
}

fn stem(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|character: char| !character.is_alphanumeric())
}

/// The names of the folders below `data` that `file` is in.
fn words_of_folders(data: &Path, file: &Path) -> impl Iterator<Item = String> {
    let folders = file.strip_prefix(data).ok().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let names: Vec<String> =
        folders.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    names.into_iter()
}

fn in_folder(data: &Path, file: &Path, name: &str) -> bool {
    words_of_folders(data, file).any(|word| word.to_lowercase() == name)
}
