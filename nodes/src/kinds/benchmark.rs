//! `benchmark`: how fast a model answers, and in how much memory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Candidates, Dtype};
use crate::{Arity, Artifact, Cores, Kind, ParamError, Port, Sensitivity, kind};

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

/// Tokens of prompts and replies at once: what no machine has the memory for is a slip.
const MOST_TOKENS: u64 = 1 << 24;

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
        if self.batches.is_empty() {
            errors.push(wrong("batches", "the list is empty").help("Write `[1]`, or leave `batches` out."));
        }
        for (index, &batch) in self.batches.iter().enumerate() {
            let length = u64::from(self.prompt) + u64::from(self.new);
            let tokens = u64::from(batch).saturating_mul(length);
            let error = match batch {
                0 => wrong("batches", "must be at least 1"),
                _ if tokens > MOST_TOKENS => {
                    let message = format!(
                        "{batch} times {length} tokens are {tokens}, and {MOST_TOKENS} are the most at once"
                    );
                    wrong("batches", &message).help("Take a smaller number, or lower `prompt` or `new`.")
                }
                _ => continue,
            };
            errors.push(error.inside(index));
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
    const VERSION: u32 = 16;
    const SUMMARY: &'static str = "Measures a model's speed and peak memory, alone on its device.";
    const PORTS: &'static [Port] = &[
        Port { name: "model", accepts: Artifact::Model, arity: Arity::One, summary: "The model to measure." },
        Port { name: "data", accepts: Artifact::Data, arity: Arity::One, summary: "The questions." },
    ];

    /// A key with nothing behind it would measure nothing, which nobody means who writes it.
    fn read(value: Value) -> (Option<Self>, Vec<ParamError>) {
        let is_empty = value.get("generation").is_some_and(Value::is_null);
        let (read, mut errors) = kind::read(value);
        if is_empty {
            let error = ParamError::value("generation", "`generation` is empty");
            errors.push(error.help("Write `generation: {}` for its defaults, or remove it."));
        }
        (read, errors)
    }

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
