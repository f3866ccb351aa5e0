//! Why a report could not be made, written or read, and whose fault it is.

use std::io;
use std::path::{Path, PathBuf};

use qpipe_nodes::protocol::Failure;

/// Why a report could not be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file is not the JSON that it should be.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1; 0 when the parser knows the line only.
        column: usize,
        /// What the parser met.
        message: String,
    },
    /// A file is JSON, but its figures contradict each other.
    #[error("{}: {message}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What contradicts what.
        message: String,
    },
    /// An evaluation without the task that is reported.
    #[error("{} holds no `{task}` results", path.display())]
    NoTask {
        /// The evaluation's summary.
        path: PathBuf,
        /// The task.
        task: &'static str,
    },
    /// A row names a baseline that is not there.
    #[error("row {row} is compared with row {baseline}, but there are {rows} rows")]
    NoBaseline {
        /// The row.
        row: usize,
        /// The index it names.
        baseline: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// Names and rows do not belong together.
    #[error("{names} names and {samples} files of answers were given for a comparison of {rows} rows")]
    Names {
        /// How many names.
        names: usize,
        /// How many files of answers.
        samples: usize,
        /// How many rows.
        rows: usize,
    },
    /// A value that JSON cannot say.
    #[error("a report cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
}

impl ReportError {
    /// What `error`, met in the file `path`, means. `first_line` is the line in the file at which the parsed text began, from 1.
    pub(super) fn malformed(path: &Path, first_line: usize, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        // serde_json ends its text with the position, which stands in fields of its own here.
        let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
        Self::Malformed {
            path: path.to_owned(),
            line: first_line + error.line().saturating_sub(1),
            column: error.column(),
            message,
        }
    }

    /// What to do, where the results folder is to blame.
    pub fn help(&self) -> Option<String> {
        let Self::Io(error) = self else { return None };
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Free some space on that disk",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "Make that folder writable"
            }
            _ => return None,
        };
        Some(format!("{advice}, or name another folder with --results; all results are in the store."))
    }

    /// Whose fault it is.
    pub fn class(&self) -> Failure {
        match self {
            Self::Io(_) => Failure::Surroundings,
            Self::Malformed { .. } | Self::Inconsistent { .. } | Self::NoTask { .. } => Failure::User,
            Self::NoBaseline { .. } | Self::Names { .. } | Self::Encode(_) => Failure::Deterministic,
        }
    }
}
