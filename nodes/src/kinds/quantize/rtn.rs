//! Round to nearest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Method;
use super::outside::{Outside, Storage};
use crate::scheme::Scheme;
use crate::{ParamError, Sensitivity};

/// Round to nearest, with llm-compressor's scales (largest magnitude / 7.5 or / 127.5, in the weights' type),
/// written as compressed-tensors.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rtn {
    /// A preset: `W8A8` or `W4A16`.
    pub scheme: Scheme,
    /// Of W4A16: input channels that share a scale: 32, 64 or 128. Default 128.
    #[serde(default)]
    pub group_size: Option<u32>,
    /// The output projection: `keep`, in 16 or 32 bits (the default), or `int8`, a scale a row. Refused where the model has
    /// none of its own (`tie_word_embeddings`): there `embeddings` is both.
    #[serde(default)]
    pub lm_head: Storage,
    /// The embedding: `keep` (the default) or `int8`. One matrix in int8 where it is the output projection too.
    #[serde(default)]
    pub embeddings: Storage,
}

impl Rtn {
    /// Input channels that share a scale; `None` for one scale an output channel.
    pub fn group(&self) -> Option<u32> {
        match self.scheme {
            Scheme::W8A8 => None,
            Scheme::W4A16 => Some(self.group_size.unwrap_or(128)),
        }
    }
}

impl Method for Rtn {
    const NAME: &'static str = "rtn";

    fn check(&self) -> Vec<ParamError> {
        match (self.scheme, self.group_size) {
            (Scheme::W8A8, Some(_)) => {
                vec![ParamError::value("group_size", "W8A8 has one scale an output channel, not groups")]
            }
            (Scheme::W4A16, Some(size)) if ![32, 64, 128].contains(&size) => {
                vec![ParamError::value("group_size", format!("{size} is not one of 32, 64 and 128"))]
            }
            _ => Vec::new(),
        }
    }

    fn completed(mut self) -> Self {
        self.group_size = self.group();
        self
    }

    fn outside(&self) -> Outside {
        Outside { lm_head: self.lm_head, embeddings: self.embeddings }
    }

    /// Rounding is element-wise: the same bytes on every device.
    fn sensitivity(&self) -> Sensitivity {
        Sensitivity::Portable
    }
}
