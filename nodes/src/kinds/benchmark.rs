//! `benchmark`: how fast a model answers, and in how much memory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Candidates, Dtype};
use crate::{Arity, Artifact, Cores, Kind, ParamError, Port, Sensitivity};

/// How the questions are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The published study's: batch 1, one forward a candidate, tokenizing included. Logits are computed where a token is scored.
    #[default]
    Sequential,
    /// As `evaluate` runs them: the prompt once, the candidates on it, many questions a batch.
    Batched,
}

fn default_questions() -> u32 {
    50
}

/// Measures a model on four-choice questions, alone on its device.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// The subject named in the prompt's first line.
    pub topic: String,
    /// How many questions, from the first on.
    #[serde(default = "default_questions")]
    pub questions: u32,
    /// How they are run.
    #[serde(default)]
    pub protocol: Protocol,
    /// What is scored as the answer.
    #[serde(default)]
    pub candidates: Candidates,
    /// The type the model computes in. Default: the checkpoint's.
    #[serde(default)]
    pub dtype: Option<Dtype>,
    /// Also measures how fast the model reads prompts and writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// How reading and writing are measured.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Prompts that are continued together, one measurement each.
    #[serde(default = "default_batches")]
    pub batches: Vec<u32>,
    /// Tokens of a prompt.
    #[serde(default = "default_prompt")]
    pub prompt: u32,
    /// Tokens that are written.
    #[serde(default = "default_new")]
    pub new: u32,
    /// How often each is measured; medians count.
    #[serde(default = "default_repeats")]
    pub repeats: u32,
}

fn default_batches() -> Vec<u32> {
    vec![1, 8, 32]
}
fn default_prompt() -> u32 {
    128
}
fn default_new() -> u32 {
    32
}
fn default_repeats() -> u32 {
    3
}

impl Generation {
    fn check(&self) -> Vec<ParamError> {
        let wrong = |key: &str, message: &str| {
            let mut error = ParamError::value("generation", message);
            error.path.push(key.to_owned());
            error
        };
        let mut errors = Vec::new();
        if self.batches.is_empty() || self.batches.contains(&0) {
            errors.push(wrong("batches", "is a list of numbers of at least 1"));
        }
        for (key, number, least) in
            [("prompt", self.prompt, 1), ("new", self.new, 2), ("repeats", self.repeats, 1)]
        {
            if number < least {
                errors.push(wrong(key, &format!("must be at least {least}")));
            }
        }
        errors
    }
}

impl Kind for Benchmark {
    const NAME: &'static str = "benchmark";
    const VERSION: u32 = 13;
    const SUMMARY: &'static str = "Measures a model's speed and peak memory, alone on its device.";
    const PORTS: &'static [Port] = &[
        Port { name: "model", accepts: Artifact::Model, arity: Arity::One, summary: "The model to measure." },
        Port { name: "data", accepts: Artifact::Data, arity: Arity::One, summary: "The questions." },
    ];

    fn check(&self) -> Vec<ParamError> {
        let mut errors = self.generation.as_ref().map(Generation::check).unwrap_or_default();
        if self.questions == 0 {
            errors.push(ParamError::value("questions", "must be at least 1"));
        }
        errors
    }

    fn output(&self) -> Artifact {
        Artifact::Benchmark
    }

    fn sensitivity(&self) -> Sensitivity {
        Sensitivity::Hardware
    }

    fn cores(&self) -> Cores {
        Cores::All
    }
}
