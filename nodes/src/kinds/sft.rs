//! `sft`: supervised fine-tuning, of a LoRA adapter or of all parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Arity, Artifact, Cores, Kind, ParamError, Port};

/// Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685): W + (alpha / rank) B A, with A and B trained.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Rank of the update.
    #[serde(default = "default_rank")]
    pub rank: u32,
    /// The update is scaled by alpha / rank.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// Share of the adapter's inputs that is dropped while training.
    #[serde(default)]
    pub dropout: f64,
    /// The linear layers that get an adapter, by the last part of their name.
    #[serde(default = "default_targets")]
    pub targets: Vec<String>,
}

/// The linear layers of a decoder block, by the last part of their name.
pub const LINEAR_NAMES: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

fn default_rank() -> u32 {
    16
}
fn default_alpha() -> f64 {
    32.0
}
fn default_targets() -> Vec<String> {
    LINEAR_NAMES.iter().map(|name| (*name).to_owned()).collect()
}
fn one() -> u32 {
    1
}
fn default_batch_size() -> u32 {
    8
}
fn default_learning_rate() -> f64 {
    2e-4
}
fn default_clip() -> f64 {
    1.0
}
fn default_max_length() -> u32 {
    512
}

/// Trains a model on rows of text, questions or conversations: AdamW, linear warm-up, then a cosine to zero.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    /// Train a LoRA adapter (the node then produces an adapter). Absent: all parameters (it produces a model).
    #[serde(default)]
    pub lora: Option<Lora>,
    /// Optimizer steps. Give this or `epochs`.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Passes over the data. Give this or `steps`.
    #[serde(default)]
    pub epochs: Option<f64>,
    /// Rows a micro-batch.
    #[serde(default = "default_batch_size")]
    pub batch_size: u32,
    /// Micro-batches an optimizer step.
    #[serde(default = "one")]
    pub grad_accumulation: u32,
    /// Peak learning rate.
    #[serde(default = "default_learning_rate")]
    pub learning_rate: f64,
    /// Steps over which the learning rate rises to its peak.
    #[serde(default)]
    pub warmup: u64,
    /// AdamW's decoupled weight decay; norms, biases and embeddings are exempt.
    #[serde(default)]
    pub weight_decay: f64,
    /// The gradient's global norm is cut to this; 0 turns clipping off.
    #[serde(default = "default_clip")]
    pub clip: f64,
    /// Rows are cut to this many tokens.
    #[serde(default = "default_max_length")]
    pub max_length: u32,
    /// Of the order of rows, the adapter's initial weights and dropout.
    #[serde(default)]
    pub seed: u64,
}

impl Kind for Sft {
    const NAME: &'static str = "sft";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Fine-tunes a model: a LoRA adapter, or all parameters.";
    const PORTS: &'static [Port] = &[
        Port { name: "model", accepts: Artifact::Model, arity: Arity::One, summary: "The model to train." },
        Port { name: "data", accepts: Artifact::Data, arity: Arity::One, summary: "The rows to train on." },
    ];

    fn check(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        match (self.steps, self.epochs) {
            (None, None) => errors.push(ParamError::missing("give `steps` or `epochs`")),
            (Some(_), Some(_)) => {
                errors.push(ParamError::value("epochs", "give `steps` or `epochs`, not both"))
            }
            (Some(0), None) => errors.push(ParamError::value("steps", "must be at least 1")),
            (None, Some(epochs)) if !(epochs.is_finite() && epochs > 0.0) => {
                errors.push(ParamError::value("epochs", "must be above 0"));
            }
            _ => {}
        }
        for (name, value) in [
            ("batch_size", self.batch_size),
            ("grad_accumulation", self.grad_accumulation),
            ("max_length", self.max_length),
        ] {
            if value == 0 {
                errors.push(ParamError::value(name, "must be at least 1"));
            }
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            errors.push(ParamError::value("learning_rate", "must be above 0"));
        }
        for (name, value) in [("clip", self.clip), ("weight_decay", self.weight_decay)] {
            if !(value.is_finite() && value >= 0.0) {
                errors.push(ParamError::value(name, "must not be negative"));
            }
        }
        if let Some(lora) = &self.lora {
            errors.extend(lora.check());
        }
        errors
    }

    fn output(&self) -> Artifact {
        if self.lora.is_some() { Artifact::Adapter } else { Artifact::Model }
    }

    fn cores(&self) -> Cores {
        Cores::AllIfLarge
    }
}

impl Lora {
    fn check(&self) -> Vec<ParamError> {
        let at = |key: &str, message: String| {
            let mut error = ParamError::value("lora", message);
            error.path.push(key.to_owned());
            error
        };
        let mut errors = Vec::new();
        if self.rank == 0 {
            errors.push(at("rank", "must be at least 1".to_owned()));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            errors.push(at("alpha", "must be above 0".to_owned()));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            errors.push(at("dropout", "must be at least 0 and below 1".to_owned()));
        }
        if self.targets.is_empty() {
            errors.push(at("targets", "names no layer".to_owned()));
        }
        for (index, target) in self.targets.iter().enumerate() {
            if !LINEAR_NAMES.contains(&target.as_str()) {
                let mut error =
                    at("targets", format!("`{target}` is not one of {}", LINEAR_NAMES.join(", ")));
                error.path.push(index.to_string());
                error.alternatives = LINEAR_NAMES.iter().map(|name| (*name).to_owned()).collect();
                errors.push(error);
            }
        }
        errors
    }
}
