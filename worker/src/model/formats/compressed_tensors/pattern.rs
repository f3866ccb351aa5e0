//! Which layers a group of `quantization_config` is for, and which are left out.

use regex::Regex;
use serde_json::Value;

use super::field::Field;
use crate::model::error::ModelError;

/// A layer's name, a regular expression after `re:`, or a class of layers.
#[derive(Debug)]
pub(super) enum Pattern {
    Name(String),
    Regex(Regex),
    /// `Linear`.
    EveryLinear,
    /// `Embedding`.
    EveryEmbedding,
    /// The base class of both.
    Every,
}

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Linear,
    Embedding,
}

impl Pattern {
    /// The patterns of a list; none where it is absent.
    pub(super) fn list(field: &Field<'_>) -> Result<Vec<Self>, ModelError> {
        let list = match field.value {
            Value::Null => return Ok(Vec::new()),
            Value::Array(list) => list,
            _ => return Err(field.unsupported("a list of names")),
        };
        let entries = list.iter().enumerate();
        entries
            .map(|(index, value)| Field { file: field.file, path: format!("{}[{index}]", field.path), value })
            .map(|field| Self::parse(&field))
            .collect()
    }

    fn parse(field: &Field<'_>) -> Result<Self, ModelError> {
        let text = field.value.as_str().ok_or_else(|| field.unsupported("a string"))?;
        match text.strip_prefix("re:") {
            // Python's re.match: from the beginning, to anywhere.
            Some(pattern) => Regex::new(&format!("^(?:{pattern})")).map(Self::Regex).map_err(|_| {
                field.unsupported("regular expressions without look-around and back-references")
            }),
            None if text == "Linear" => Ok(Self::EveryLinear),
            None if text == "Embedding" => Ok(Self::EveryEmbedding),
            None if text == "Module" => Ok(Self::Every),
            None => Ok(Self::Name(text.to_owned())),
        }
    }

    pub(super) fn matches(&self, name: &str, class: Class) -> bool {
        match self {
            Self::Name(exact) => exact == name,
            Self::Regex(regex) => regex.is_match(name),
            Self::EveryLinear => class == Class::Linear,
            Self::EveryEmbedding => class == Class::Embedding,
            Self::Every => true,
        }
    }

    /// A name comes before an expression, an expression before a class, as in compressed-tensors'
    /// `match_targets`.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Name(_) => 0,
            Self::Regex(_) => 1,
            Self::EveryLinear | Self::EveryEmbedding | Self::Every => 2,
        }
    }
}
