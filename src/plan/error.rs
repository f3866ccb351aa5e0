//! Mistakes that only show once the file's sources are looked at.

use std::path::PathBuf;

use thiserror::Error;

/// Why a plan cannot be made.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A local source is not there.
    #[error("`{path}` does not exist")]
    Missing {
        /// The path, made absolute or relative to the working directory.
        path: PathBuf,
    },
    /// A local source is there, but is not what it should be.
    #[error("`{path}` {problem}")]
    Unsuitable {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder holds nothing of use.
    #[error("`{path}` holds no {what}")]
    Empty {
        /// The folder.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Two rows of a report would have the same name.
    #[error("two rows of the report are called `{name}`")]
    DuplicateRow {
        /// The row's name.
        name: String,
    },
    /// The baseline is not among the evaluated models.
    #[error("the baseline `{model}` has no evaluation in this report")]
    BaselineNotEvaluated {
        /// Instance of the baseline.
        model: String,
    },
    /// A benchmark's model is not among the evaluated ones.
    #[error("`{benchmark}` measures `{model}`, which has no evaluation in this report")]
    BenchmarkWithoutRow {
        /// Instance of the benchmark.
        benchmark: String,
        /// Instance of its model.
        model: String,
    },
    /// `--only` or `--force` names nothing.
    #[error("there is no node `{name}`")]
    UnknownNode {
        /// As given.
        name: String,
        /// The nearest name.
        nearest: Option<String>,
    },
    /// `--locked`, and the lock file does not say what a source is.
    #[error("`{source_text}` is not in `{lock}`, and --locked forbids asking for it")]
    NotLocked {
        /// As in the file.
        source_text: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] qpipe_cache::StoreError),
}

impl PlanError {
    /// What to do, as a sentence.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("Paths are relative to the file that names them.".to_owned()),
            Self::Unsuitable { .. } | Self::Empty { .. } => Some(
                "A model is a Hugging Face checkpoint folder (config.json, safetensors, tokenizer.json); an adapter a folder of peft's; data a file of rows (.jsonl, .json, .csv, .tsv, .parquet) or a folder of them.".to_owned(),
            ),
            Self::Store(error) => error.help().map(str::to_owned),
            Self::DuplicateRow { .. } => Some("Give the models different labels.".to_owned()),
            Self::BaselineNotEvaluated { model } => Some(format!("Add an evaluation of `{model}`.")),
            Self::UnknownNode { nearest: Some(name), .. } => Some(format!("Did you mean `{name}`?")),
            Self::NotLocked { .. } => Some("Run once without --locked and commit the lock file.".to_owned()),
            _ => None,
        }
    }
}
