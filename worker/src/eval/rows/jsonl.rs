//! JSON lines; blank ones are passed over.

use std::path::PathBuf;
use std::sync::Arc;

use super::{DataRow, bytes_of, not_finite, object, problem_of};
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
        let value = not_finite::read(line).map_err(|mistake| EvalError::Json {
            place: place.clone(),
            column: mistake.column,
            problem: problem_of(&mistake.error),
        })?;
        rows.push(object(value, &place)?);
    }
    Ok(rows)
}
