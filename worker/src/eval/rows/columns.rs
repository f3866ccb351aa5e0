//! Rows of JSON as a table, which is how Hugging Face datasets, and so lm-eval, have them: a field that a row lacks is null,
//! fields have the order in which they first come up, numbers of a column are all floats where one of them is, and texts are
//! times where all of them are. Where values do not go together they stay what they are, but a text that is JSON is its value.
//!
//! The rules were found by trial with datasets 5.2 (which reads JSON by Apache Arrow). What Arrow does by blocks of 10 MB, and
//! datasets then with all files of a task, is done here with each file. A `NaN` is a text here (see `not_finite.rs`), and `-0` a
//! float.

use std::mem;

use jiff::ToSpan as _;
use jiff::civil::DateTime;
use serde_json::{Map, Value};

use super::DataRow;

/// What the values of a column have in common.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Nothing yet: all are null.
    Null,
    Bool,
    Integer,
    Float,
    Text,
    /// Texts that are times.
    Time,
    List(Box<Kind>),
    /// Objects with the same fields.
    Object(Vec<(String, Kind)>),
    /// Nothing.
    Mixed,
}

/// Makes a table of `rows`.
pub(super) fn unify(rows: &mut [DataRow]) {
    let mut columns: Map<String, Value> = Map::new();
    let mut kinds: Vec<Kind> = Vec::new();
    for row in rows.iter() {
        for (name, value) in &row.fields {
            let place = match columns.get(name).and_then(Value::as_u64) {
                Some(place) => place as usize,
                None => {
                    columns.insert(name.clone(), kinds.len().into());
                    kinds.push(Kind::Null);
                    kinds.len() - 1
                }
            };
            kinds[place] = mem::replace(&mut kinds[place], Kind::Mixed).with(Kind::of(value));
        }
    }
    for row in rows {
        let mut fields = mem::take(&mut row.fields);
        for (name, kind) in columns.keys().zip(&kinds) {
            let mut value = fields.remove(name).unwrap_or_default();
            kind.apply(&mut value);
            row.fields.insert(name.clone(), value);
        }
    }
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Integer,
            Value::Number(_) => Self::Float,
            Value::String(text) if time(text).is_some() => Self::Time,
            Value::String(_) => Self::Text,
            Value::Array(values) => {
                Self::List(Box::new(values.iter().map(Self::of).fold(Self::Null, Self::with)))
            }
            Value::Object(fields) => {
                Self::Object(fields.iter().map(|(name, value)| (name.clone(), Self::of(value))).collect())
            }
        }
    }

    /// What values of this kind and of `other` have in common.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Null, kind) | (kind, Self::Null) => kind,
            (one, other) if one == other => one,
            (Self::Integer, Self::Float) | (Self::Float, Self::Integer) => Self::Float,
            (Self::Text, Self::Time) | (Self::Time, Self::Text) => Self::Text,
            (Self::List(one), Self::List(other)) => Self::List(Box::new(one.with(*other))),
            (Self::Object(one), Self::Object(mut others)) if one.len() == others.len() => {
                let field = |(name, kind): (String, Self)| {
                    let place = others.iter().position(|(other, _)| *other == name)?;
                    Some((name, kind.with(others.swap_remove(place).1)))
                };
                one.into_iter().map(field).collect::<Option<_>>().map_or(Self::Mixed, Self::Object)
            }
            _ => Self::Mixed,
        }
    }

    /// Makes `value`, one of those that this was found of, such a one.
    fn apply(&self, value: &mut Value) {
        match (self, value) {
            (Self::Float, value) => {
                if let Some(number) = value.as_f64() {
                    *value = number.into();
                }
            }
            (Self::Mixed, value) => {
                if let Some(read) = value.as_str().and_then(|text| serde_json::from_str(text).ok()) {
                    *value = read;
                }
            }
            (Self::Time, Value::String(text)) => {
                if let Some(time) = time(text) {
                    *text = time.strftime("%Y-%m-%d %H:%M:%S").to_string();
                }
            }
            (Self::List(kind), Value::Array(values)) => values.iter_mut().for_each(|value| kind.apply(value)),
            (Self::Object(kinds), Value::Object(fields)) => {
                let mut old = mem::take(fields);
                for (name, kind) in kinds {
                    let mut value = old.remove(name).unwrap_or_default();
                    kind.apply(&mut value);
                    fields.insert(name.clone(), value);
                }
            }
            _ => {}
        }
    }
}

/// The time that Arrow takes `text` for: a day, or an hour, minute or second of one (`2024-01-31T12:30Z`), in UTC.
fn time(text: &str) -> Option<DateTime> {
    let (day, rest) = text.split_at_checked(10)?;
    let (year, month, day) = match day.as_bytes() {
        [_, _, _, _, b'-', _, _, b'-', _, _] => {
            let century = i16::from(number(day.get(..2)?)?);
            (
                100 * century + i16::from(number(day.get(2..4)?)?),
                number(day.get(5..7)?)?,
                number(day.get(8..)?)?,
            )
        }
        _ => return None,
    };
    let at = |hour: i8, minute: i8, second: i8| {
        DateTime::new(year, month, day, hour, minute, second, 0).ok().filter(|_| year > 0 && second < 60)
    };
    let Some(clock) = rest.strip_prefix(['T', ' ']) else { return rest.is_empty().then(|| at(0, 0, 0))? };
    let zone = clock.find(['Z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone);
    let mut parts = [0; 3];
    for (index, part) in clock.split(':').enumerate() {
        *parts.get_mut(index)? = number(part)?;
    }
    let ahead = match zone.as_bytes() {
        [] | [b'Z'] => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let (hours, minutes) = zone[1..].split_at_checked(2)?;
            let minutes = match minutes {
                "" => 0,
                minutes => {
                    number(minutes.strip_prefix(':').unwrap_or(minutes)).filter(|&minutes| minutes < 60)?
                }
            };
            let hours = number(hours).filter(|&hours| hours < 24)?;
            let minutes = 60 * i64::from(hours) + i64::from(minutes);
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    at(parts[0], parts[1], parts[2])?.checked_sub(ahead.minutes()).ok()
}

/// Two digits.
fn number(digits: &str) -> Option<i8> {
    let is_plain = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::eval::task::Place;

    /// `rows` as a table, in the text that shows the order of fields.
    fn table(rows: Value) -> String {
        let place = Place { file: Arc::new(PathBuf::from("x.jsonl")), line: 1 };
        let Value::Array(rows) = rows else { panic!("a list of rows") };
        let row = |fields: Value| DataRow {
            place: place.clone(),
            fields: fields.as_object().cloned().unwrap_or_default(),
        };
        let mut rows: Vec<DataRow> = rows.into_iter().map(row).collect();
        unify(&mut rows);
        Value::Array(rows.into_iter().map(|row| Value::Object(row.fields)).collect()).to_string()
    }

    /// Each pair was tried with datasets 5.2.
    #[test]
    fn rows_are_what_datasets_has() {
        for (rows, expected) in [
            (
                json!([{"a": 1, "b": 2}, {"a": 2}, {"c": 3, "a": 1}]),
                json!([{"a": 1, "b": 2, "c": null}, {"a": 2, "b": null, "c": null}, {"a": 1, "b": null, "c": 3}]),
            ),
            (json!([{"a": 1, "b": 2}, {"b": 2, "a": 2}]), json!([{"a": 1, "b": 2}, {"a": 2, "b": 2}])),
            (json!([{"a": 1}, {"a": null}, {"a": 2.5}]), json!([{"a": 1.0}, {"a": null}, {"a": 2.5}])),
            (json!([{"a": [1, 2.5]}, {"a": [3]}]), json!([{"a": [1.0, 2.5]}, {"a": [3.0]}])),
            (
                json!([{"a": 9_223_372_036_854_775_808_u64}, {"a": 1}]),
                json!([{"a": 9.223_372_036_854_776e18}, {"a": 1.0}]),
            ),
            (json!([{"a": 1}, {"a": 1.5}, {"a": "x"}]), json!([{"a": 1}, {"a": 1.5}, {"a": "x"}])),
            (
                json!([{"a": 0}, {"a": "1"}, {"a": "[1, 2]"}, {"a": "x"}, {"a": {"b": "1"}}]),
                json!([{"a": 0}, {"a": 1}, {"a": [1, 2]}, {"a": "x"}, {"a": {"b": "1"}}]),
            ),
            (json!([{"a": {"b": "1"}}, {"a": {"b": 2}}]), json!([{"a": {"b": 1}}, {"a": {"b": 2}}])),
            (json!([{"a": true}, {"a": 1}]), json!([{"a": true}, {"a": 1}])),
            (
                json!([{"c": {"t": 1, "l": 2}}, {"c": {"l": 1.5, "t": 2}}]),
                json!([{"c": {"t": 1, "l": 2.0}}, {"c": {"t": 2, "l": 1.5}}]),
            ),
            (
                json!([{"c": {"t": ["a"], "l": 1}}, {"c": {"t": ["b"]}}, {"c": null}]),
                json!([{"c": {"t": ["a"], "l": 1}}, {"c": {"t": ["b"]}}, {"c": null}]),
            ),
            (
                json!([{"c": [{"t": 1}, {"u": 2}]}, {"c": []}]),
                json!([{"c": [{"t": 1}, {"u": 2}]}, {"c": []}]),
            ),
            (
                json!([{"a": "2024-01-01"}, {"a": "2024-01-02 10:00:00"}, {"a": null}]),
                json!([{"a": "2024-01-01 00:00:00"}, {"a": "2024-01-02 10:00:00"}, {"a": null}]),
            ),
            (json!([{"a": "2024-01-01"}, {"a": ""}]), json!([{"a": "2024-01-01"}, {"a": ""}])),
            (
                json!([{"a": {"b": "2024-01-01"}}, {"a": {"b": "2024-01-01", "c": 1}}]),
                json!([{"a": {"b": "2024-01-01"}}, {"a": {"b": "2024-01-01", "c": 1}}]),
            ),
        ] {
            assert_eq!(table(rows.clone()), expected.to_string(), "{rows}");
        }
    }

    #[test]
    fn times_are_those_that_arrow_sees() {
        for (text, expected) in [
            ("2024-01-01", Some("2024-01-01 00:00:00")),
            ("0001-01-01", Some("0001-01-01 00:00:00")),
            ("2024-01-01 10", Some("2024-01-01 10:00:00")),
            ("2024-01-01 10:05", Some("2024-01-01 10:05:00")),
            ("2024-01-01T10:00:09", Some("2024-01-01 10:00:09")),
            ("2024-01-01 10Z", Some("2024-01-01 10:00:00")),
            ("2024-01-01T10:00:00+01:00", Some("2024-01-01 09:00:00")),
            ("2024-01-01T10:00:00-0130", Some("2024-01-01 11:30:00")),
            ("2024-01-01T10:00+11", Some("2023-12-31 23:00:00")),
            ("2024-01-01 10:00:00.5", None),
            ("2024-01-01Z", None),
            ("2024-02-30", None),
            ("2024-1-1", None),
            ("20240101", None),
            ("2024-01-01 24:00:00", None),
            ("2024-01-01 10:00:60", None),
            ("2024-01-01t10:00:00", None),
            ("2024-01-01 10:00:00Z1", None),
            ("2024-01-01 10:00:00+1", None),
            ("2024-01-01 10:00:00+99:00", None),
            ("2024-01-01 10:00:00+01:", None),
            ("2024-01-01 10:00:00+01:0030", None),
            ("2024-01-15 0515", None),
            ("2024-01-01 ", None),
            (" 2024-01-01", None),
            ("12:00:00", None),
            ("été", None),
        ] {
            let found = time(text).map(|time| time.strftime("%Y-%m-%d %H:%M:%S").to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
