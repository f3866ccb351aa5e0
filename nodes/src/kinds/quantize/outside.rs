//! The matrices outside the decoder blocks: the embedding and the output projection. What methods share of them.
//!
//! A method whose format has a place for int8 matrices has the two options `lm_head` and `embeddings` of type [`Storage`]
//! and gives them to [`super::Method::outside`]; rounding, storing and loading them is the worker's, for all methods.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ParamError;

/// How a matrix outside the blocks is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// As it is, in 16 or 32 bits.
    #[default]
    Keep,
    /// In int8 with a scale a row, rounded to nearest (llm-compressor's rule); activations stay as they are.
    Int8,
}

/// What is asked of the matrices outside the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// The output projection.
    pub lm_head: Storage,
    /// The embedding; where `tie_word_embeddings` is set, the output projection too.
    pub embeddings: Storage,
}

impl Outside {
    /// Both options by their keys.
    pub fn by_key(self) -> [(&'static str, Storage); 2] {
        [("lm_head", self.lm_head), ("embeddings", self.embeddings)]
    }

    /// An error for each option that is not `keep`: `format` has no place for what it asks for; `help` says what has.
    pub(super) fn refused(self, format: &str, help: &str) -> Vec<ParamError> {
        let asked = self.by_key().into_iter().filter(|(_, storage)| *storage != Storage::Keep);
        let refuse = |key| ParamError::value(key, format!("{format} stores it in 16 bits only")).help(help);
        asked.map(|(key, _)| refuse(key)).collect()
    }
}
