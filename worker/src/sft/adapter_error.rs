//! Why an adapter cannot be read or applied.

use std::path::PathBuf;

use thiserror::Error;

use crate::model::error::ModelError;

/// Why an adapter cannot be read or applied.
#[derive(Debug, Error)]
pub enum AdapterError {
    /// A folder without one of the two files.
    #[error("`{}` is not an adapter: `{file}` is missing", folder.display())]
    Missing {
        /// The adapter.
        folder: PathBuf,
        /// The file.
        file: &'static str,
    },
    /// The settings are not JSON.
    #[error("`{}`: not JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A setting is absent or of another type.
    #[error("`{}`: `{key}` is {found}, {expected} is due", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A setting that says the adapter is more than W + scale · B A.
    #[error("`{}`: adapters with `{key}: {value}` are not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A tensor that is neither an A nor a B.
    #[error("`{}`: tensor `{tensor}` is no LoRA matrix of a linear layer", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
    },
    /// An A without a B, or the reverse, or two that do not fit each other.
    #[error("`{}`: the matrices of `{layer}` do not fit each other", path.display())]
    Pair {
        /// The file.
        path: PathBuf,
        /// The layer.
        layer: String,
    },
    /// Matrices of another rank than the settings say: one of the two files is another adapter's.
    #[error("`{}`: `{layer}` has rank {found}, adapter_config.json says {}", path.display(), listed(said))]
    Rank {
        /// The matrices' file.
        path: PathBuf,
        /// The layer.
        layer: String,
        /// Of its matrices.
        found: i64,
        /// `r`, and what `rank_pattern` allows beside it.
        said: Vec<i64>,
    },
    /// A layer that the model has not.
    #[error("the adapter changes `{layer}`, which the model has not")]
    NoLayer {
        /// The layer.
        layer: String,
    },
    /// A layer of another size.
    #[error("the adapter's `{layer}` is {adapter:?}, the model's {model:?}")]
    Shape {
        /// The layer.
        layer: String,
        /// [N, K] of B A.
        adapter: Vec<i64>,
        /// [N, K] of W.
        model: Vec<i64>,
    },
    /// The matrices' file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
    /// A file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl AdapterError {
    /// What to do, as a sentence.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing { .. } => {
                "An adapter is a folder in peft's format: adapter_config.json and adapter_model.safetensors."
            }
            Self::Unsupported { .. } => "Merge it with peft, and start from the merged model.",
            Self::Json { .. } | Self::Setting { .. } | Self::Tensor { .. } => {
                "Fetch the adapter again; the file is damaged, or of another method than LoRA."
            }
            Self::Pair { .. } | Self::Rank { .. } => {
                "Fetch the adapter again; its files do not belong together."
            }
            Self::NoLayer { .. } | Self::Shape { .. } => "Use the model that the adapter was trained on.",
            Self::Model(_) | Self::Torch(_) | Self::Io(_) => return None,
        })
    }
}

fn listed(ranks: &[i64]) -> String {
    let words: Vec<String> = ranks.iter().map(i64::to_string).collect();
    words.join(" or ")
}
