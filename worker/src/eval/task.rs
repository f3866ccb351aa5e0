//! What a task is: data in, documents out, answers judged. It sees neither tokens nor tensors.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use qpipe_nodes::kinds::{Bos, Candidates};
use qpipe_nodes::limit::Limit;
use qpipe_nodes::results::{Divergence, Filtered};
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

/// What does the model write after `prompt`?
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// What stands before.
    pub prompt: Arc<str>,
    /// How it goes on and where it ends.
    pub rule: Arc<GenerationRule>,
}

/// How a model writes, under lm-eval's names.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationRule {
    /// The reply ends before the first of these texts.
    pub until: Vec<String>,
    /// Tokens at most.
    pub max_gen_toks: usize,
    /// Draws tokens instead of taking the likeliest.
    pub sampling: Option<Sampling>,
    /// The task's own words, for the record.
    pub arguments: Value,
}

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; above 0.
    pub temperature: f64,
    /// Only so many of the likeliest.
    pub top_k: Option<usize>,
    /// Only the likeliest that come to this probability.
    pub top_p: f64,
}

/// How likely is `text`, all of it?
#[derive(Clone, Debug, PartialEq)]
pub struct WholeText {
    /// What is scored.
    pub text: String,
    /// Words that its log-likelihood is divided among.
    pub words: u64,
    /// Bytes that its log-likelihood is divided among.
    pub bytes: u64,
}

/// What is asked about a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// How likely each of several texts is, one a choice, in the order of the choices.
    Continuations(Vec<Request>),
    /// How likely a text is by itself, window by window where it is longer than the model's context.
    Text(WholeText),
    /// What the model writes.
    Reply(Generation),
}

/// What the model answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// To [`Asked::Continuations`], one a choice; to [`Asked::Text`], one a window. With them, how the predictions differ
    /// from the reference's, if there is one.
    Scores(Vec<Score>, Option<Divergence>),
    /// To [`Asked::Reply`]: the text.
    Reply(String),
}

impl Response {
    /// The scores; of a reply there are none.
    pub fn scores(&self) -> &[Score] {
        match self {
            Self::Scores(scores, _) => scores,
            Self::Reply(_) => &[],
        }
    }

    /// The reply; of scores it is empty.
    pub fn reply(&self) -> &str {
        match self {
            Self::Scores(..) => "",
            Self::Reply(text) => text,
        }
    }

    /// Two parts of one response to the same requests: what a part does not know has a probability of 1 in it.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Scores(mut scores, one), Self::Scores(others, other)) => {
                for (score, other) in scores.iter_mut().zip(others) {
                    score.log_probability += other.log_probability;
                    score.is_greedy &= other.is_greedy;
                }
                Self::Scores(scores, one.zip(other).map(|(one, other)| one.and(other)))
            }
            (reply, _) => reply,
        }
    }

    /// How the predictions differ from the reference's.
    pub fn divergence(&self) -> Option<Divergence> {
        match self {
            Self::Scores(_, divergence) => *divergence,
            Self::Reply(_) => None,
        }
    }
}

/// A question as text: what is to be answered, and which answers are right.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it comes from.
    pub place: Place,
    /// What the model is asked.
    pub asked: Asked,
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
    /// The continuations that are to be scored; none where something else is asked.
    pub fn requests(&self) -> &[Request] {
        match &self.asked {
            Asked::Continuations(requests) => requests,
            Asked::Text(_) | Asked::Reply(_) => &[],
        }
    }

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
    /// Not all questions.
    pub limit: Option<Limit>,
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
    /// Where a tokenizer merges the end of a context with what follows.
    pub border: Border,
}

/// What stands before what is scored where a tokenizer merges the end of a context with the beginning of the continuation.
/// Either way the continuation is what follows so many tokens of both together as the context has alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// The tokens of both together, as the published study has them.
    Merged,
    /// The tokens of the context alone, as lm-eval has them.
    Apart,
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
    /// How often each stands there, one behind the other: once for each reply that is drawn.
    pub times: usize,
    /// How many answers count for each. Where none is drawn all are the same, and it is asked once.
    pub repeats: usize,
    /// How many the data has, as far as it was read.
    pub of: u64,
}

/// What lm-eval's tables and files say of a task beside its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// What tables call it, if not by its name.
    pub alias: Option<String>,
    /// Its version.
    pub version: Value,
    /// Examples before each question.
    pub num_fewshot: u32,
    /// `multiple_choice`, `loglikelihood_rolling` or `generate_until`.
    pub output_type: &'static str,
}

/// What a response is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Index of the choice that is counted as the answer; of a reply none.
    pub pred: Option<u32>,
    /// Whether the question counts as answered rightly; a text is neither right nor wrong.
    pub is_right: Option<bool>,
    /// Figures of the question, filter by filter.
    pub filtered: Vec<Filtered>,
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

    /// What the response to a document is worth, or several: one for each time that it was asked.
    ///
    /// # Errors
    /// When the document's row does not say how it is to be judged.
    fn judge(&self, document: &Document, responses: &[Response]) -> Result<Judgement, EvalError>;

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
