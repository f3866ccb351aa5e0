//! JSON lines; blank ones are passed over.

use std::path::PathBuf;
use std::sync::Arc;

use super::{DataRow, bytes_of, object, problem_of};
use crate::eval::error::EvalError;
use crate::eval::task::Place;

pub(super) fn read(file: &Arc<PathBuf>, limit: usize) -> Result<Vec<DataRow>, EvalError> {
    let bytes = bytes_of(file)?;
    let mut rows = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if rows.len() >= limit {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let place = Place { file: Arc::clone(file), line: index + 1 };
        let Ok(line) = std::str::from_utf8(line) else { return Err(EvalError::NotUtf8 { place }) };
        let value = serde_json::from_str(line).map_err(|error| EvalError::Json {
            place: place.clone(),
            column: error.column(),
            problem: problem_of(&error),
        })?;
        rows.push(object(value, &place)?);
    }
    Ok(rows)
}
