//! `sft-merge`: folds a LoRA adapter into the weights it was trained on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Arity, Artifact, Kind, ParamError, Port};

/// W + (alpha / rank) B A for every adapted layer, computed in float32, written in the model's own 16- or
/// 32-bit type. It has no parameters.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftMerge {}

impl Kind for SftMerge {
    const NAME: &'static str = "sft-merge";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Folds a LoRA adapter into 16- or 32-bit weights.";
    const PORTS: &'static [Port] = &[
        Port {
            name: "model",
            accepts: Artifact::Model,
            arity: Arity::One,
            summary: "The model the adapter was trained on.",
        },
        Port { name: "adapter", accepts: Artifact::Adapter, arity: Arity::One, summary: "The adapter." },
    ];

    fn check(&self) -> Vec<ParamError> {
        Vec::new()
    }

    fn output(&self) -> Artifact {
        Artifact::Model
    }
}
