//! One JSON array of objects, or JSON lines under the name of JSON.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::{DataRow, bytes_of, jsonl, not_finite, object, problem_of};
use crate::eval::error::EvalError;
use crate::eval::task::Place;

pub(super) fn read(file: &Arc<PathBuf>, limit: usize) -> Result<Vec<DataRow>, EvalError> {
    let bytes = bytes_of(file)?;
    if bytes.trim_ascii_start().first() != Some(&b'[') {
        return jsonl::read(file, limit);
    }
    let place = |line| Place { file: Arc::clone(file), line };
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        EvalError::NotUtf8 { place: place(1 + before.iter().filter(|&&byte| byte == b'\n').count()) }
    })?;
    let values: Vec<Value> = not_finite::read(text).map_err(|mistake| EvalError::Json {
        place: place(mistake.line),
        column: mistake.column,
        problem: problem_of(&mistake.error),
    })?;
    let numbered = values.into_iter().enumerate().take(limit);
    numbered.map(|(index, value)| object(value, &place(index + 1))).collect()
}
