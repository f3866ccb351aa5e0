//! Why data cannot be made into text.

use thiserror::Error;

use super::chat::ChatError;
use super::rows::RowsError;
use crate::error::ActionError;
use crate::model::ModelError;

/// Why data cannot be made into text.
#[derive(Debug, Error)]
pub enum DataError {
    /// The files cannot be read as rows.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A row of messages cannot be written in the model's chat format.
    #[error("{place}: {source}")]
    Chat {
        /// The row: `train.jsonl, line 3`.
        place: String,
        /// What is wrong with it.
        source: ChatError,
    },
    /// The model's chat template itself does not parse.
    #[error(transparent)]
    Template(ChatError),
    /// The tokenizer.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<DataError> for ActionError {
    fn from(error: DataError) -> Self {
        let message = error.to_string();
        let help = match error {
            DataError::Model(error) => return error.into(),
            DataError::Rows(RowsError::Io(error)) => return error.into(),
            DataError::Rows(error) => error.help(),
            DataError::Chat { source, .. } | DataError::Template(source) => source.help().map(str::to_owned),
        };
        match help {
            Some(help) => Self::user(message).help(help),
            None => Self::user(message),
        }
    }
}
