//! The types of things that flow along a pipeline's edges.

use std::fmt;

/// What a node produces and what a port accepts. Every artifact is a folder of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Artifact {
    /// A Hugging Face checkpoint folder: `config.json`, safetensors, `tokenizer.json`.
    Model,
    /// A LoRA adapter folder in peft's format: `adapter_config.json`, `adapter_model.safetensors`.
    Adapter,
    /// One or more data files (JSON lines).
    Data,
    /// What the inputs of a model's linear layers look like: `statistics.json` and safetensors files.
    Statistics,
    /// `evaluation.json` and one `TASK.jsonl` a task, see [`crate::results`].
    Evaluation,
    /// `benchmark.json`, see [`crate::results`].
    Benchmark,
    /// The statistics that a report is rendered from.
    Report,
}

impl Artifact {
    /// The word used in messages, with its article: "a model".
    pub fn with_article(self) -> &'static str {
        match self {
            Self::Model => "a model",
            Self::Adapter => "an adapter",
            Self::Data => "data",
            Self::Statistics => "a calibration",
            Self::Evaluation => "an evaluation",
            Self::Benchmark => "a benchmark",
            Self::Report => "a report",
        }
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.with_article();
        f.write_str(words.rsplit(' ').next().unwrap_or(words))
    }
}
