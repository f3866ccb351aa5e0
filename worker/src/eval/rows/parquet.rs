//! Apache Parquet, as the Hub stores datasets: a row an object, its columns in the file's order.

use std::path::PathBuf;
use std::sync::Arc;

use parquet::basic::LogicalType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::TypePtr;
use serde_json::Value;

use super::{DataRow, object};
use crate::eval::error::EvalError;
use crate::eval::python::repr;
use crate::eval::task::Place;

pub(super) fn read(file: &Arc<PathBuf>, limit: usize) -> Result<Vec<DataRow>, EvalError> {
    let place = |line| Place { file: Arc::clone(file), line };
    let no_table = |error: ParquetError| EvalError::NoTable {
        path: file.as_ref().clone(),
        problem: format!("not a Parquet file that can be read: {error}"),
    };
    let reader =
        SerializedFileReader::new(fs_err::File::open(file.as_ref())?.into_file()).map_err(no_table)?;
    let zones: Vec<&str> = reader.metadata().file_metadata().schema().get_fields().iter().map(zone).collect();
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None).map_err(no_table)?.take(limit) {
        let line = rows.len() + 1;
        let row = row.map_err(|error| EvalError::Table { place: place(line), problem: error.to_string() })?;
        let mut value = row.to_json_value();
        for ((name, field), zone) in row.get_column_iter().zip(&zones) {
            let Some(Value::String(text)) = value.get_mut(name) else { continue };
            match field {
                Field::TimestampMillis(_) | Field::TimestampMicros(_) => *text = python_time(text, zone),
                Field::Bytes(bytes) => *text = repr::bytes(bytes.data()),
                _ => {}
            }
        }
        rows.push(object(value, &place(line))?);
    }
    Ok(rows)
}

/// What Python writes behind a time of this column: nothing where it is of no zone.
fn zone(column: &TypePtr) -> &'static str {
    match column.get_basic_info().logical_type_ref() {
        Some(LogicalType::Timestamp(time)) if !time.is_adjusted_to_u_t_c => "",
        _ => "+00:00",
    }
}

/// `2024-01-01 12:30:00.500 +00:00` as Python's datetime prints it: six digits of a second's fraction, or none.
fn python_time(time: &str, zone: &str) -> String {
    let time = time.strip_suffix(" +00:00").unwrap_or(time);
    match time.split_once('.') {
        Some((whole, fraction)) if fraction.contains(|digit| digit != '0') => {
            format!("{whole}.{fraction:0<6}{zone}")
        }
        Some((whole, _)) => format!("{whole}{zone}"),
        None => format!("{time}{zone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_does() {
        assert_eq!(python_time("2024-01-01 12:30:00.000000 +00:00", ""), "2024-01-01 12:30:00");
        assert_eq!(
            python_time("2024-01-01 12:30:00.250 +00:00", "+00:00"),
            "2024-01-01 12:30:00.250000+00:00"
        );
    }
}
