//! A value of `quantization_config` with its place, and what is asked of it.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::model::error::ModelError;

/// Keys of `weights` and of `input_activations`; an observer only says how the range was found.
const ARGUMENT_KEYS: [&str; 10] = [
    "num_bits",
    "type",
    "symmetric",
    "group_size",
    "strategy",
    "dynamic",
    "actorder",
    "zp_dtype",
    "observer",
    "observer_kwargs",
];

/// A value and where it stands.
pub(super) struct Field<'a> {
    pub(super) file: &'a Path,
    pub(super) path: String,
    pub(super) value: &'a Value,
}

impl<'a> Field<'a> {
    /// The value under `key`; null where there is none.
    pub(super) fn get(&self, key: &str) -> Field<'a> {
        static NULL: Value = Value::Null;
        Field {
            file: self.file,
            path: format!("{}.{key}", self.path),
            value: self.value.get(key).unwrap_or(&NULL),
        }
    }

    /// Null, missing, or an empty object.
    pub(super) fn is_absent(&self) -> bool {
        self.value.is_null() || self.value.as_object().is_some_and(Map::is_empty)
    }

    pub(super) fn unsupported(&self, known: &str) -> ModelError {
        ModelError::Unsupported {
            file: self.file.to_owned(),
            field: self.path.clone(),
            value: self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned),
            known: known.to_owned(),
        }
    }

    /// An error unless it is absent or an object in which no keys but the `known` have values.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ModelError> {
        if self.is_absent() {
            return Ok(());
        }
        let object = self.value.as_object().ok_or_else(|| self.unsupported("an object"))?;
        let mut unknown = object.keys().filter(|key| !known.contains(&key.as_str()));
        match unknown.find(|key| !self.get(key).is_absent()) {
            Some(key) => Err(self.get(key).unsupported(&known.join(", "))),
            None => Ok(()),
        }
    }

    /// The text that it holds, one of `known`; upper and lower case are the same.
    pub(super) fn one_of<'k>(&self, known: &[&'k str]) -> Result<&'k str, ModelError> {
        let text = self.value.as_str().unwrap_or_default();
        let found = known.iter().find(|name| name.eq_ignore_ascii_case(text));
        found.copied().ok_or_else(|| self.unsupported(&known.join(", ")))
    }

    /// An error unless it is absent or one of `known`.
    pub(super) fn absent_or(&self, known: &[&str]) -> Result<(), ModelError> {
        if self.is_absent() {
            return Ok(());
        }
        if known.is_empty() {
            return Err(self.unsupported("null"));
        }
        self.one_of(known).map(|_| ())
    }

    /// An error unless these are the arguments of a symmetric rounding to integers of `bits` bits, at run
    /// time or not, with nothing besides.
    pub(super) fn expect_integers(&self, bits: u64, dynamic: bool) -> Result<(), ModelError> {
        self.expect_rounding(bits, true, dynamic)
    }

    /// The same, symmetric or not.
    pub(super) fn expect_rounding(
        &self,
        bits: u64,
        symmetric: bool,
        dynamic: bool,
    ) -> Result<(), ModelError> {
        if self.is_absent() {
            return Err(self.unsupported(&format!("{bits}-bit integers")));
        }
        let expect = |key: &str, default: Value, expected: Value| {
            let field = self.get(key);
            let found = if field.value.is_null() { &default } else { field.value };
            if *found == expected { Ok(()) } else { Err(field.unsupported(&expected.to_string())) }
        };
        expect("num_bits", json!(8), json!(bits))?;
        self.get("type").absent_or(&["int"])?;
        expect("symmetric", json!(true), json!(symmetric))?;
        expect("dynamic", json!(false), json!(dynamic))?;
        self.get("zp_dtype").absent_or(&["torch.int8"])?;
        for key in ["block_structure", "scale_dtype"] {
            self.get(key).absent_or(&[])?;
        }
        self.only(&ARGUMENT_KEYS)?;
        // `weight` and its other name only say in which order GPTQ went through the columns.
        let order = self.get("actorder");
        if order.value != &Value::Bool(false) {
            order.absent_or(&["weight", "static"])?;
        }
        Ok(())
    }

    /// The width of packed weights.
    pub(super) fn bits(&self) -> Result<u32, ModelError> {
        let bits = self.get("num_bits");
        if bits.value.is_null() {
            return Ok(8);
        }
        let known = bits.value.as_u64().and_then(|bits| u32::try_from(bits).ok());
        known.filter(|bits| (2..=8).contains(bits)).ok_or_else(|| bits.unsupported("2 to 8"))
    }

    /// The strategy, which may be left to be told from the group size.
    pub(super) fn strategy(&self, known: &[&str]) -> Result<String, ModelError> {
        let strategy = self.get("strategy");
        if !strategy.value.is_null() {
            return strategy.one_of(known).map(str::to_owned);
        }
        let inferred = match self.get("group_size").value.as_i64() {
            None => "tensor",
            Some(-1) => "channel",
            Some(_) => "group",
        };
        let found = known.iter().find(|name| **name == inferred);
        found.map(|name| (*name).to_owned()).ok_or_else(|| strategy.unsupported(&known.join(", ")))
    }

    /// Input channels that share a scale; `None`: all of them.
    pub(super) fn group(&self) -> Result<Option<i64>, ModelError> {
        match self.strategy(&["group", "channel"])?.as_str() {
            "group" => self.group_size().map(Some),
            _ => Ok(None),
        }
    }

    fn group_size(&self) -> Result<i64, ModelError> {
        let size = self.get("group_size");
        size.value.as_i64().filter(|size| *size > 0).ok_or_else(|| size.unsupported("a positive number"))
    }
}
