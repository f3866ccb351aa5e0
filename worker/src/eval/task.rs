//! What a task is: data in, documents out. It sees neither tokens nor tensors.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qpipe_nodes::kinds::Candidates;

use super::error::EvalError;

/// Where a question stands in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<PathBuf>,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A question as text: a prompt and the continuations to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it comes from.
    pub place: Place,
    /// What stands before every candidate.
    pub prompt: String,
    /// The continuations, with their leading space.
    pub candidates: Vec<String>,
    /// Index of the right candidate.
    pub gold: u32,
}

impl Document {
    /// Rejects a NaN and an infinity among its scores, which no working model gives.
    ///
    /// # Errors
    /// For the first candidate whose score is not a finite number.
    pub fn check_finite(&self, scores: &[f64]) -> Result<(), EvalError> {
        match scores.iter().position(|score| !score.is_finite()) {
            Some(index) => {
                Err(EvalError::NotFinite { place: self.place.clone(), index, score: scores[index] })
            }
            None => Ok(()),
        }
    }
}

/// What a task may ask of the node's parameters.
#[derive(Clone, Copy, Debug)]
pub struct TaskOptions<'a> {
    /// The subject named in the prompt.
    pub topic: &'a str,
    /// What is scored as the answer.
    pub candidates: Candidates,
    /// Only the first so many questions.
    pub limit: Option<u64>,
}

/// Turns data into documents.
pub trait Task: Sync {
    /// As in the pipeline file, and the stem of the file of answers.
    fn name(&self) -> &'static str;

    /// All documents of `data` (a file, or a folder of files), in its order.
    ///
    /// # Errors
    /// When the data cannot be read or a row is no question; the error names file and line.
    fn documents(&self, data: &Path, options: &TaskOptions<'_>) -> Result<Vec<Document>, EvalError>;
}
