//! `quantize`: stores a model's linear layers in few bits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scheme::Scheme;
use crate::{Arity, Artifact, Kind, ParamError, Port, Sensitivity};

/// How the codes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Round to nearest, with llm-compressor's scales (largest magnitude / 7.5 or / 127.5, in the weights' type).
    Rtn,
}

/// Quantizes the linear layers of a model and writes a compressed-tensors checkpoint. Embeddings and
/// `lm_head` stay as they are.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quantize {
    /// How the codes are chosen.
    pub method: Method,
    /// A preset: `W8A8` or `W4A16`.
    pub scheme: Scheme,
    /// Of W4A16: input channels that share a scale: 32, 64 or 128. Default 128.
    #[serde(default)]
    pub group_size: Option<u32>,
}

impl Quantize {
    /// Input channels that share a scale; `None` for one scale an output channel.
    pub fn group(&self) -> Option<u32> {
        match self.scheme {
            Scheme::W8A8 => None,
            Scheme::W4A16 => Some(self.group_size.unwrap_or(128)),
        }
    }
}

impl Kind for Quantize {
    const NAME: &'static str = "quantize";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Stores a model's linear layers in few bits.";
    const PORTS: &'static [Port] = &[Port {
        name: "model",
        accepts: Artifact::Model,
        arity: Arity::One,
        summary: "The model to quantize, in 16 or 32 bits.",
    }];

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

    fn output(&self) -> Artifact {
        Artifact::Model
    }

    /// Rounding is element-wise: the same bytes on every device.
    fn sensitivity(&self) -> Sensitivity {
        match self.method {
            Method::Rtn => Sensitivity::Portable,
        }
    }
}
