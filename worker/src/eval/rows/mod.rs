//! The rows of data files: one JSON object each, whatever the file's format.

mod columns;
mod csv;
mod json;
mod jsonl;
mod not_finite;
mod parquet;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use serde_json::{Map, Value};

use super::error::EvalError;
use super::task::Place;

/// A row and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct DataRow {
    /// Where.
    pub place: Place,
    /// Its fields.
    pub fields: Map<String, Value>,
}

/// Reads at most so many rows of a file.
type Read = fn(&Arc<PathBuf>, usize) -> Result<Vec<DataRow>, EvalError>;

/// How files are read.
struct Format {
    extension: &'static str,
    read: Read,
    /// Whether its columns have names and types. Those of others are found by looking at all rows.
    has_columns: bool,
}

/// All formats, by extension.
const FORMATS: &[Format] = &[
    Format { extension: "jsonl", read: jsonl::read, has_columns: false },
    JSON,
    Format { extension: "csv", read: csv::read_commas, has_columns: true },
    Format { extension: "tsv", read: csv::read_tabs, has_columns: true },
    PARQUET,
];
/// Of what is no array it reads JSON lines.
const JSON: Format = Format { extension: "json", read: json::read, has_columns: false };
const PARQUET: Format = Format { extension: "parquet", read: parquet::read, has_columns: true };
/// What a Parquet file begins with.
const PARQUET_MARK: &[u8] = b"PAR1";

/// A file of rows, or a folder of such files. What was read is kept: the tasks of a group share their files.
#[derive(Debug)]
pub struct Data {
    path: PathBuf,
    files: Vec<PathBuf>,
    read: RefCell<HashMap<PathBuf, Arc<Vec<DataRow>>>>,
}

impl Data {
    /// `path` itself, or what the folder and its subfolders hold, in the order of their paths.
    ///
    /// # Errors
    /// When it cannot be read, or a folder holds no data file.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        let files = if fs::metadata(path)?.is_dir() { files_below(path)? } else { vec![path.to_owned()] };
        Ok(Self { path: path.to_owned(), files, read: RefCell::default() })
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// All rows of `file`, as a table: each has all columns (see `columns.rs`).
    ///
    /// # Errors
    /// Those of [`read`].
    pub fn rows(&self, file: &Path) -> Result<Arc<Vec<DataRow>>, EvalError> {
        if let Some(rows) = self.read.borrow().get(file) {
            return Ok(Arc::clone(rows));
        }
        let format = format_of(file)?;
        let mut rows = (format.read)(&Arc::new(file.to_owned()), usize::MAX)?;
        if !format.has_columns {
            columns::unify(&mut rows);
        }
        let rows = Arc::new(rows);
        self.read.borrow_mut().insert(file.to_owned(), Arc::clone(&rows));
        Ok(rows)
    }
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if format_called(&path).is_some() {
                files.push(path);
            }
        }
    }
    files.sort();
    if files.is_empty() { Err(EvalError::NoFiles(folder.to_owned())) } else { Ok(files) }
}

/// At most `limit` rows of `file`, whose format its extension tells; without one, as a blob of the cache is, its first
/// bytes do. Rows after the limit are not looked at.
///
/// # Errors
/// When the file cannot be read or a row is no object; the error names the row.
pub fn read(file: &Path, limit: usize) -> Result<Vec<DataRow>, EvalError> {
    (format_of(file)?.read)(&Arc::new(file.to_owned()), limit)
}

fn format_of(file: &Path) -> Result<&'static Format, EvalError> {
    match format_called(file) {
        Some(format) => Ok(format),
        None if begins_with(file, PARQUET_MARK)? => Ok(&PARQUET),
        None => Ok(&JSON),
    }
}

fn format_called(file: &Path) -> Option<&'static Format> {
    let extension = file.extension()?.to_str()?.to_ascii_lowercase();
    FORMATS.iter().find(|format| format.extension == extension)
}

fn begins_with(file: &Path, mark: &[u8]) -> Result<bool, EvalError> {
    let mut first = Vec::new();
    fs::File::open(file)?.take(mark.len() as u64).read_to_end(&mut first)?;
    Ok(first == mark)
}

/// A file's bytes without a byte order mark.
fn bytes_of(file: &Path) -> Result<Vec<u8>, EvalError> {
    let mut bytes = fs::read(file)?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// What a JSON value is, in words.
pub fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What the JSON parser says, without its own position.
fn problem_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem).to_owned()
}

/// The object in `value`.
fn object(value: Value, place: &Place) -> Result<DataRow, EvalError> {
    match value {
        Value::Object(fields) => Ok(DataRow { place: place.clone(), fields }),
        other => Err(EvalError::NotAnObject { place: place.clone(), found: described(&other) }),
    }
}
