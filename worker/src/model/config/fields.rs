//! The fields of config.json by their types.

use std::path::Path;

use serde_json::{Map, Value};

use crate::model::error::ModelError;

/// Typed access to a JSON object; errors name the file and the field. A null counts as absent.
pub(in crate::model) struct Fields<'a> {
    pub(in crate::model) file: &'a Path,
    /// Put before field names in messages: `rope_scaling.`.
    pub(in crate::model) prefix: &'static str,
    pub(in crate::model) map: &'a Map<String, Value>,
}

impl Fields<'_> {
    pub(in crate::model) fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    pub(super) fn is_null(&self, field: &str) -> bool {
        matches!(self.map.get(field), Some(Value::Null))
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(in crate::model) fn wrong(&self, field: &str, problem: String) -> ModelError {
        ModelError::Field { file: self.file.to_owned(), field: format!("{}{field}", self.prefix), problem }
    }

    pub(in crate::model) fn unsupported(&self, field: &str, value: &str, known: &str) -> ModelError {
        ModelError::Unsupported {
            file: self.file.to_owned(),
            field: format!("{}{field}", self.prefix),
            value: value.to_owned(),
            known: known.to_owned(),
        }
    }

    fn whole(&self, field: &str, least: i64, most: i64) -> Result<Option<i64>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        // A float without a fraction is what some converters write.
        let number = value.as_i64().or_else(|| value.as_f64().filter(|v| v.fract() == 0.0).map(|v| v as i64));
        match number {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => {
                Err(self.wrong(field, format!("is {value}, expected a whole number from {least} to {most}")))
            }
        }
    }

    /// A whole number from 1 to `most`.
    pub(in crate::model) fn count(&self, field: &str, most: i64) -> Result<Option<i64>, ModelError> {
        self.whole(field, 1, most)
    }

    pub(super) fn needed_count(&self, field: &str, most: i64) -> Result<i64, ModelError> {
        self.count(field, most)?.ok_or_else(|| self.wrong(field, "is missing".to_owned()))
    }

    pub(super) fn non_negative(&self, field: &str) -> Result<Option<i64>, ModelError> {
        self.whole(field, 0, i64::from(i32::MAX))
    }

    /// A finite number above 0.
    pub(in crate::model) fn positive(&self, field: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => Err(self.wrong(field, format!("is {value}, expected a number above 0"))),
        }
    }

    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| self.wrong(field, format!("is {value}, expected true or false")))
    }

    pub(in crate::model) fn text(&self, field: &str) -> Result<Option<&str>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(field, format!("is {value}, expected a text")))
    }

    /// A token or a list of tokens; empty where absent.
    pub(super) fn tokens(&self, field: &str) -> Result<Vec<i64>, ModelError> {
        let expected = "expected a token number or a list of them";
        let values = match self.get(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let tokens: Option<Vec<i64>> = values.iter().map(Value::as_i64).collect();
        tokens.ok_or_else(|| self.wrong(field, format!("is {}, {expected}", self.map[field])))
    }
}
