//! Apache Parquet, as the Hub stores datasets: a row an object, its columns in the file's order.

use std::path::PathBuf;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{DataRow, object};
use crate::eval::error::EvalError;
use crate::eval::task::Place;

pub(super) fn read(file: &Arc<PathBuf>, limit: usize) -> Result<Vec<DataRow>, EvalError> {
    let place = |line| Place { file: Arc::clone(file), line };
    let wrong = |line: usize, error: ParquetError| EvalError::Table {
        place: place(line),
        problem: format!("not a Parquet file that can be read: {error}"),
    };
    let reader =
        SerializedFileReader::new(fs_err::File::open(file.as_ref())?.into_file()).map_err(|e| wrong(1, e))?;
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None).map_err(|error| wrong(1, error))?.take(limit) {
        let line = rows.len() + 1;
        let value = row.map_err(|error| wrong(line, error))?.to_json_value();
        rows.push(object(value, &place(line))?);
    }
    Ok(rows)
}
