//! Tables with a line of names. What a column holds is found from all of its fields, as pandas finds it, with which
//! Hugging Face's datasets read such files: whole numbers, numbers, truth values or texts.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Number, Value};

use super::{DataRow, bytes_of};
use crate::eval::error::EvalError;
use crate::eval::task::Place;

/// Fields without a value (pandas' `STR_NA_VALUES`).
const MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
];

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
    let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().map_err(wrong)?;
    let columns: Vec<Column> =
        (0..names.len()).map(|column| Column::of(records.iter().map(|record| &record[column]))).collect();
    let row = |record: csv::StringRecord| {
        let line = record.position().map_or(0, |position| position.line() as usize);
        let fields = names.iter().zip(&record).zip(&columns);
        let fields = fields.map(|((name, field), column)| (name.to_owned(), column.value(field))).collect();
        DataRow { place: place(line), fields }
    };
    Ok(records.into_iter().take(limit).map(row).collect())
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Integers,
    Numbers,
    Truths,
    Texts,
}

impl Column {
    /// The narrowest kind that all `fields` are of. Whole numbers of which one is missing are numbers.
    fn of<'a>(fields: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut known = fields.clone().filter(|field| !is_missing(field)).peekable();
        if known.peek().is_none() {
            return Self::Texts;
        }
        let all = |test: fn(&str) -> bool| known.clone().all(test);
        if all(|field| integer(field).is_some()) {
            let has_gaps = fields.clone().any(is_missing);
            return if has_gaps { Self::Numbers } else { Self::Integers };
        }
        // Beyond 64 bits a number would lose digits.
        if all(is_digits) {
            return Self::Texts;
        }
        if all(|field| number(field).is_some()) {
            return Self::Numbers;
        }
        if all(|field| truth(field).is_some()) { Self::Truths } else { Self::Texts }
    }

    fn value(self, field: &str) -> Value {
        if is_missing(field) {
            return Value::Null;
        }
        let value = match self {
            Self::Integers => integer(field).map(Value::Number),
            Self::Numbers => number(field).map(Value::from),
            Self::Truths => truth(field).map(Value::from),
            Self::Texts => None,
        };
        value.unwrap_or_else(|| field.into())
    }
}

fn is_missing(field: &str) -> bool {
    MISSING.contains(&field)
}

fn integer(field: &str) -> Option<Number> {
    let field = field.trim_matches(' ');
    let signed = field.parse::<i64>().ok().map(Number::from);
    signed.or_else(|| field.parse::<u64>().ok().map(Number::from))
}

fn is_digits(field: &str) -> bool {
    let field = field.trim_matches(' ').trim_start_matches(['+', '-']);
    !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit())
}

/// A finite number in decimal digits: Rust would also take words.
fn number(field: &str) -> Option<f64> {
    let field = field.trim_matches(' ');
    let is_plain = field.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    field.parse().ok().filter(|number: &f64| is_plain && number.is_finite())
}

fn truth(field: &str) -> Option<bool> {
    match field {
        "True" | "TRUE" | "true" => Some(true),
        "False" | "FALSE" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(text: &str) -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.csv");
        fs_err::write(&file, text).unwrap();
        let rows = read_commas(&Arc::new(file), usize::MAX).unwrap();
        rows.into_iter().map(|row| Value::Object(row.fields)).collect()
    }

    /// `[*datasets.load_dataset("csv", data_files=…)["train"]]`, datasets 5.2.
    #[test]
    fn columns_are_what_pandas_takes_them_for() {
        let found = rows("i,f,b,t,g,n\n007,1.50,true,NA,1,NA\n-2,3,False,\"x, y\",,\n 5,1e3,TRUE,3,2,null\n");
        let expected = [
            json!({"i": 7, "f": 1.5, "b": true, "t": null, "g": 1.0, "n": null}),
            json!({"i": -2, "f": 3.0, "b": false, "t": "x, y", "g": null, "n": null}),
            json!({"i": 5, "f": 1000.0, "b": true, "t": "3", "g": 2.0, "n": null}),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn long_numbers_keep_their_digits() {
        let found = rows("a,b\n18446744073709551615,123456789012345678901\n1,2\n");
        assert_eq!(found[0], json!({"a": u64::MAX, "b": "123456789012345678901"}));
    }

    #[test]
    fn a_limit_hides_rows_and_not_what_they_say_of_their_column() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.csv");
        fs_err::write(&file, "label\n1\ntwo\n").unwrap();
        let rows = read_commas(&Arc::new(file), 1).unwrap();
        assert_eq!(Value::Object(rows[0].fields.clone()), json!({"label": "1"}));
    }
}
