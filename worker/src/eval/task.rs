//! What a task is: data in, documents out, answers judged. It sees neither tokens nor tensors.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use qpipe_nodes::kinds::{Bos, Candidates};
use serde_json::Value;

use super::error::EvalError;
use super::rows::Data;
use crate::data::chat::ChatTemplate;

/// Where a question stands in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<PathBuf>,
    /// Its line (of JSON lines) or row, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// How likely is `continuation` after `context`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What stands before. Shared by the requests of a question, mostly.
    pub context: Arc<str>,
    /// What is scored, with its leading space.
    pub continuation: String,
}

/// A question as text: what is to be scored, and which answers are right.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it comes from.
    pub place: Place,
    /// One a choice, in the order of the choices.
    pub requests: Vec<Request>,
    /// The choices as the data has them.
    pub choices: Vec<String>,
    /// Indices of the right choices; none where the data has no right one.
    pub gold: Vec<u32>,
    /// The row of the data, and its target as text, where the answers are to be read by lm-eval's tools.
    pub source: Option<Source>,
}

/// What a document was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The row.
    pub row: Value,
    /// What the task's target template makes of it.
    pub target: String,
}

impl Document {
    /// Rejects a NaN and an infinity among its scores, which no working model gives.
    ///
    /// # Errors
    /// For the first candidate whose score is not a finite number.
    pub fn check_finite(&self, scores: &[Score]) -> Result<(), EvalError> {
        match scores.iter().position(|score| !score.log_probability.is_finite()) {
            Some(index) => {
                let score = scores[index].log_probability;
                Err(EvalError::NotFinite { place: self.place.clone(), index, score })
            }
            None => Ok(()),
        }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Natural logarithm of the probability of the continuation.
    pub log_probability: f64,
    /// Whether each of its tokens is the likeliest at its place.
    pub is_greedy: bool,
}

/// What a task may ask of the node's parameters and the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskOptions<'a> {
    /// The subject named in the prompt.
    pub topic: &'a str,
    /// What is scored as the answer.
    pub candidates: Candidates,
    /// Only the first so many questions.
    pub limit: Option<u64>,
    /// Examples before each question; `None`: as the task says.
    pub num_fewshot: Option<u32>,
    /// Of the choice of examples.
    pub seed: u64,
    /// Writes prompts as conversations.
    pub chat: Option<&'a ChatTemplate>,
}

/// What a tokenizer adds to the texts of a task, and what happens to long ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The rule for the beginning-of-sequence token where the pipeline names none.
    pub bos: Bos,
    /// What happens to a question that is longer than the model's context.
    pub overlong: Overlong,
}

/// What happens to a question that is longer than the model's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlong {
    /// It is an error.
    Refuse,
    /// The first tokens of its context are left out, as lm-eval does.
    CutContext,
}

/// The questions of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Questions {
    /// Those that are asked.
    pub documents: Vec<Document>,
    /// How many the data has, as far as it was read.
    pub of: u64,
}

/// What lm-eval's tables and files say of a task beside its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// What tables call it, if not by its name.
    pub alias: Option<String>,
    /// Its version.
    pub version: f64,
    /// Examples before each question.
    pub num_fewshot: u32,
    /// What is counted.
    pub metrics: Vec<&'static str>,
}

/// What an answer is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Index of the choice that is counted as the answer.
    pub pred: u32,
    /// Figures of the question, by metric.
    pub metrics: BTreeMap<String, f64>,
}

/// Turns data into documents and scores into figures.
pub trait Task: Sync + Send {
    /// As in the pipeline file, and the stem of the file of answers.
    fn name(&self) -> &str;

    /// What it asks of the tokens.
    fn rules(&self) -> Rules;

    /// The questions of `data`, in its order.
    ///
    /// # Errors
    /// When the data cannot be read or a row is no question; the error names file and line.
    fn questions(&self, data: &Data, options: &TaskOptions<'_>) -> Result<Questions, EvalError>;

    /// What the scores of a document, one a choice, are worth.
    fn judge(&self, document: &Document, scores: &[Score]) -> Judgement;

    /// What lm-eval's tables and files say of the task beside its figures. `None`: the task is not one of lm-eval's.
    fn definition(&self, options: &TaskOptions<'_>) -> Option<Definition>;
}

/// Index of the highest value, the first of equals.
pub fn first_highest(values: impl IntoIterator<Item = f64>) -> u32 {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, value) in values.into_iter().enumerate() {
        if value > best.1 {
            best = (index as u32, value);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(first_highest([-2.0, -1.0, -1.0, -3.0]), 1);
        assert_eq!(first_highest([]), 0);
    }
}
