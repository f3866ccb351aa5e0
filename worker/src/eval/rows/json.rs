//! One JSON array of objects, or JSON lines under the name of JSON.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::{DataRow, bytes_of, jsonl, object, problem_of};
use crate::eval::error::EvalError;
use crate::eval::task::Place;

pub(super) fn read(file: &Arc<PathBuf>, limit: usize) -> Result<Vec<DataRow>, EvalError> {
    let bytes = bytes_of(file)?;
    if bytes.trim_ascii_start().first() != Some(&b'[') {
        return jsonl::read(file, limit);
    }
    let place = |line| Place { file: Arc::clone(file), line };
    let values: Vec<Value> = serde_json::from_slice(&bytes).map_err(|error| EvalError::Json {
        place: place(error.line()),
        column: error.column(),
        problem: problem_of(&error),
    })?;
    let numbered = values.into_iter().enumerate().take(limit);
    numbered.map(|(index, value)| object(value, &place(index + 1))).collect()
}
