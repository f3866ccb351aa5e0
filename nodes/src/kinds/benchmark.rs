//! `benchmark`: how fast a model answers, and in how much memory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Candidates, Dtype};
use crate::{Arity, Artifact, Cores, Kind, ParamError, Port, Sensitivity};

/// How the questions are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The published study's: batch 1, one forward a candidate, tokenizing included.
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
}

impl Kind for Benchmark {
    const NAME: &'static str = "benchmark";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Measures a model's speed and peak memory, alone on its device.";
    const PORTS: &'static [Port] = &[
        Port { name: "model", accepts: Artifact::Model, arity: Arity::One, summary: "The model to measure." },
        Port { name: "data", accepts: Artifact::Data, arity: Arity::One, summary: "The questions." },
    ];

    fn check(&self) -> Vec<ParamError> {
        if self.questions == 0 {
            vec![ParamError::value("questions", "must be at least 1")]
        } else {
            Vec::new()
        }
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
