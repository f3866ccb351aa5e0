//! How many of a task's questions are asked.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The first so many, or, below 1, such a part of all, rounded up (lm-eval's `--limit`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Limit {
    /// At least 1.
    Count(u64),
    /// Between 0 and 1, both excluded.
    Part(f64),
}

impl Limit {
    /// How many of `all` are asked.
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).min(all),
            Self::Part(part) => (all as f64 * part).ceil() as usize,
        }
    }

    /// After how many questions no more need to be read; `None` where their number has to be known.
    pub fn count(self) -> Option<usize> {
        match self {
            Self::Count(count) => Some(usize::try_from(count).unwrap_or(usize::MAX)),
            Self::Part(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 1 up, or a part of all below 1")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Limit, E> {
        match count {
            0 => Err(E::invalid_value(Unexpected::Unsigned(count), &self)),
            _ => Ok(Limit::Count(count)),
        }
    }

    fn visit_f64<E: Error>(self, part: f64) -> Result<Limit, E> {
        // 100.0 is a count, too; beyond 2^53 a float no longer tells which.
        if part > 0.0 && part < 1.0 {
            Ok(Limit::Part(part))
        } else if part >= 1.0 && part.fract() == 0.0 && part < 2f64.powi(53) {
            Ok(Limit::Count(part as u64))
        } else {
            Err(E::invalid_value(Unexpected::Float(part), &self))
        }
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 }]
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<Limit, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_part_is_rounded_up() {
        let tenth = read(json!(0.1)).unwrap();
        assert_eq!([0, 1, 10, 11, 20].map(|all| tenth.of(all)), [0, 1, 1, 2, 2]);
        assert_eq!(tenth.count(), None);
    }

    #[test]
    fn a_count_is_no_more_than_there_are() {
        for three in [json!(3), json!(3.0)] {
            let three = read(three).unwrap();
            assert_eq!((three.of(2), three.of(5), three.count()), (2, 3, Some(3)));
            assert_eq!(serde_json::to_value(three).unwrap(), json!(3), "the key of a node has it as before");
        }
    }

    #[test]
    fn nothing_else_is_a_limit() {
        for wrong in [json!(0), json!(-1), json!(0.0), json!(1.5), json!(1e300), json!("10"), json!([1])] {
            assert!(read(wrong.clone()).unwrap_err().contains("a whole number from 1 up"), "{wrong}");
        }
    }
}
