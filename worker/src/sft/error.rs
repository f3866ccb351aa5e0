//! Why a model was not trained or an adapter not merged.

use std::path::PathBuf;

use qpipe_nodes::protocol::Failure;
use thiserror::Error;

use super::adapter_error::AdapterError;
use crate::data::DataError;
use crate::error::ActionError;
use crate::model::error::ModelError;

/// Why a model was not trained or an adapter not merged.
#[derive(Debug, Error)]
pub enum SftError {
    /// The data cannot be made into text.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Not one row has a token to learn from.
    #[error("none of the {rows} rows in `{}` has a token to learn from", path.display())]
    NothingToLearn {
        /// The data.
        path: PathBuf,
        /// How many rows there are.
        rows: usize,
    },
    /// The weights are integers with scales.
    #[error("the model in `{}` is quantized: {why}", path.display())]
    Quantized {
        /// The checkpoint.
        path: PathBuf,
        /// What cannot be done with it.
        why: &'static str,
    },
    /// None of the model's layers is called as the parameter says.
    #[error("the model has no linear layer called {}", targets.join(", "))]
    NoTarget {
        /// `lora.targets`.
        targets: Vec<String>,
    },
    /// The loss or the gradient is no number any more.
    #[error("the {figure} is not finite at step {step}")]
    Diverged {
        /// `loss`, or `gradient`.
        figure: &'static str,
        /// The step, from 1.
        step: u64,
    },
    /// A unit of an earlier attempt does not fit this run.
    #[error("unit `{}` does not fit this run: {why}", path.display())]
    Unit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An adapter that cannot be read or applied.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The checkpoint or the tokenizer.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
    /// A file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<SftError> for ActionError {
    fn from(error: SftError) -> Self {
        let message = error.to_string();
        match error {
            SftError::Data(error) => error.into(),
            SftError::Model(error) | SftError::Adapter(AdapterError::Model(error)) => error.into(),
            SftError::Torch(error) | SftError::Adapter(AdapterError::Torch(error)) => error.into(),
            SftError::Io(error) | SftError::Adapter(AdapterError::Io(error)) => error.into(),
            SftError::NothingToLearn { .. } => Self::user(message)
                .help("Raise `max_length`, or check that the completions are not empty: the loss is on the completion only, of {messages} on the turns whose `role` is `assistant`."),
            SftError::Quantized { .. } => Self::user(message)
                .help("Train and merge the 16- or 32-bit model, and quantize what comes out of it."),
            SftError::Adapter(error) => match error.help() {
                Some(help) => Self::user(message).help(help),
                None => Self::user(message),
            },
            SftError::NoTarget { .. } => Self::user(message)
                .help("Name layers by the last part of their name, as the checkpoint does: q_proj, v_proj."),
            SftError::Diverged { .. } => Self::new(Failure::Deterministic, message)
                .help("Lower `learning_rate`, lengthen `warmup`, or set `clip`."),
            SftError::Unit { .. } => Self::new(Failure::Surroundings, message),
        }
    }
}
