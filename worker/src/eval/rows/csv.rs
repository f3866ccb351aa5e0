//! Tables with a line of names: every field is a text, an empty one too.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::{DataRow, bytes_of};
use crate::eval::error::EvalError;
use crate::eval::task::Place;

pub(super) fn read_commas(file: &Arc<PathBuf>, limit: usize) -> Result<Vec<DataRow>, EvalError> {
    read(file, limit, b',')
}

pub(super) fn read_tabs(file: &Arc<PathBuf>, limit: usize) -> Result<Vec<DataRow>, EvalError> {
    read(file, limit, b'\t')
}

fn read(file: &Arc<PathBuf>, limit: usize, delimiter: u8) -> Result<Vec<DataRow>, EvalError> {
    let bytes = bytes_of(file)?;
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bytes.as_slice());
    let place = |line| Place { file: Arc::clone(file), line };
    let wrong = |error: csv::Error| {
        let line = error.position().map_or(1, |position| position.line() as usize);
        EvalError::Table { place: place(line), problem: error.to_string() }
    };
    let names = reader.headers().map_err(wrong)?.clone();
    let mut rows = Vec::new();
    for record in reader.records().take(limit) {
        let record = record.map_err(wrong)?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        let field = |(name, text): (&str, &str)| (name.to_owned(), Value::from(text));
        rows.push(DataRow { place: place(line), fields: names.iter().zip(&record).map(field).collect() });
    }
    Ok(rows)
}
