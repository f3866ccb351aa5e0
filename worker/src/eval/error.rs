//! What can be wrong with an evaluation. Errors of a question name its file and line.

use std::path::PathBuf;

use qpipe_nodes::protocol::Failure;

use super::task::Place;
use crate::error::ActionError;
use crate::model::ModelError;

/// Why questions cannot be read or scored.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The operating system refused; the message of `fs_err` names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The model does not load, or the tokenizer fails.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// libtorch refused an operation.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
    /// Bytes that are no text.
    #[error("{place}: not valid UTF-8")]
    NotUtf8 {
        /// Where.
        place: Place,
    },
    /// A line that is no JSON.
    #[error("{place}:{column}: {problem}")]
    Json {
        /// Where.
        place: Place,
        /// The column, from 1.
        column: usize,
        /// What the parser says, without its own position.
        problem: String,
    },
    /// A table that cannot be read.
    #[error("{place}: {problem}")]
    Table {
        /// Where.
        place: Place,
        /// What the reader says.
        problem: String,
    },
    /// A file that is no table at all.
    #[error("{}: {problem}", path.display())]
    NoTable {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        problem: String,
    },
    /// A row that a task's template or function cannot read.
    #[error("{}", rule_words(place, task, rule, problem, origin.as_deref()))]
    Rule {
        /// Where.
        place: Place,
        /// The task.
        task: String,
        /// The rule, as lm-eval names it: `doc_to_text`.
        rule: &'static str,
        /// What is wrong, in words.
        problem: String,
        /// Where the rule stands, of a task that comes from a file.
        origin: Option<String>,
    },
    /// A task file with what does not work.
    #[error("task `{task}`: {problem}")]
    TaskFile {
        /// The task.
        task: String,
        /// What is wrong, in words.
        problem: String,
    },
    /// A reply that cannot be judged.
    #[error("{place}: {problem}")]
    Judge {
        /// Where the question stands.
        place: Place,
        /// What is wrong, in words.
        problem: String,
    },
    /// A task whose replies may be as long as the model's context.
    #[error("{place}: the reply may have {reply} tokens, the model's context has {context}")]
    LongReply {
        /// Where.
        place: Place,
        /// Tokens of the reply at most.
        reply: usize,
        /// The model's `max_position_embeddings`.
        context: usize,
    },
    /// A task without a question in the data.
    #[error("{}: no rows for task `{task}`{wanted}", path.display())]
    NoRows {
        /// The data.
        path: PathBuf,
        /// The task.
        task: String,
        /// Which were looked for.
        wanted: String,
    },
    /// Fewer examples than asked for.
    #[error("`num_fewshot: {asked}`, but task `{task}` has {found} rows to take examples from{hint}")]
    Fewshot {
        /// The task.
        task: String,
        /// Examples before each question.
        asked: u32,
        /// Rows of the split.
        found: usize,
        /// Which split was looked for.
        hint: String,
    },
    /// A conversation that the model's chat template refuses.
    #[error("{place}: {problem}")]
    Chat {
        /// Where.
        place: Place,
        /// What the template says.
        problem: String,
    },
    /// JSON, but no object.
    #[error("{place}: expected a JSON object, found {found}")]
    NotAnObject {
        /// Where.
        place: Place,
        /// What stands there, in words.
        found: &'static str,
    },
    /// A question without one of its fields.
    #[error("{place}: `{field}` is missing")]
    Missing {
        /// Where.
        place: Place,
        /// The field.
        field: &'static str,
    },
    /// A field of another type.
    #[error("{place}: `{field}` is {found}, expected {expected}")]
    Field {
        /// Where.
        place: Place,
        /// The field.
        field: &'static str,
        /// What stands there, in words.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A question with fewer or more than four choices.
    #[error("{place}: `choices` has {found} entries, expected 4")]
    Choices {
        /// Where.
        place: Place,
        /// How many there are.
        found: usize,
    },
    /// An answer that is none of the four.
    #[error("{place}: `answer` is {found}, expected a letter from A to D or an index from 0 to 3")]
    Answer {
        /// Where.
        place: Place,
        /// The JSON that stands there.
        found: String,
    },
    /// No question at all.
    #[error("{}: no questions", .0.display())]
    Empty(PathBuf),
    /// A folder without data.
    #[error("{}: the folder has no data file (.jsonl, .json, .csv, .tsv, .parquet)", .0.display())]
    NoFiles(PathBuf),
    /// A prompt that the model has no positions for.
    #[error(
        "{place}: the prompt has {tokens} tokens with its longest candidate, the model's context has {context}"
    )]
    TooLong {
        /// Where.
        place: Place,
        /// Tokens of the prompt and the longest candidate.
        tokens: usize,
        /// The model's `max_position_embeddings`.
        context: i64,
    },
    /// A continuation that the model has no positions for, whatever is cut from its context.
    #[error("{place}: candidate {index} has {tokens} tokens, the model's context has {context}")]
    LongContinuation {
        /// Where.
        place: Place,
        /// Which, from 0.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// The model's `max_position_embeddings`.
        context: i64,
    },
    /// A candidate that adds no token to its prompt.
    #[error("{place}: candidate {index} adds no token to the prompt")]
    EmptyCandidate {
        /// Where.
        place: Place,
        /// Which, from 0.
        index: usize,
    },
    /// A prompt of no tokens: nothing predicts the first token of a candidate.
    #[error("{place}: the prompt has no tokens")]
    EmptyPrompt {
        /// Where.
        place: Place,
    },
    /// `bos: always` for a tokenizer that has no such token.
    #[error("`bos: always`, but the tokenizer names no beginning-of-sequence token")]
    NoBos,
    /// The model computed a NaN or an infinity.
    #[error("{place}: the score of candidate {index} is {score}")]
    NotFinite {
        /// Where.
        place: Place,
        /// Which, from 0.
        index: usize,
        /// The score.
        score: f64,
    },
    /// The model computed a NaN or an infinity where it was to write.
    #[error("{place}: the scores of token {token} of the reply are not finite numbers")]
    ReplyNotFinite {
        /// Where.
        place: Place,
        /// Which, from 0.
        token: usize,
    },
    /// A task without data.
    #[error("`data` has no entry for task `{0}`")]
    MissingData(String),
    /// A task that this worker does not know.
    #[error("unknown task `{0}`")]
    UnknownTask(String),
}

impl EvalError {
    /// What to do, where that is not obvious.
    fn help(&self) -> Option<&'static str> {
        match self {
            Self::Json { .. } | Self::NotAnObject { .. } => {
                Some("Write one JSON object a line, or one list of objects.")
            }
            Self::Missing { .. }
            | Self::Field { .. }
            | Self::Choices { .. }
            | Self::Answer { .. }
            | Self::Empty(_) => Some(
                "Write one JSON object a line: `question` (text), `choices` (four texts), `answer` (a letter, or an index from 0).",
            ),
            Self::Rule { origin: Some(_), .. } => {
                Some("Look at that line of the task file, and at that row.")
            }
            Self::Rule { .. } | Self::Chat { .. } | Self::Judge { .. } => Some(
                "Look at that row; docs/evaluation.md says what each task needs of a row, and what of a chat template.",
            ),
            Self::NoFiles(_) | Self::NoRows { .. } => {
                Some("Look at `data`; docs/evaluation.md says under Data which files and rows are a task's.")
            }
            Self::Table { .. } | Self::NoTable { .. } => {
                Some("Write the file again: CSV with a header line, or Parquet.")
            }
            Self::NotUtf8 { .. } => Some("Save the file as UTF-8."),
            Self::EmptyCandidate { .. } | Self::EmptyPrompt { .. } => {
                Some("Remove the question, or complete it.")
            }
            Self::TooLong { .. } => Some("Remove the question, or shorten it: prompts are not truncated."),
            Self::LongContinuation { .. } => {
                Some("Remove the question, or take a model with a longer context.")
            }
            Self::LongReply { .. } => {
                Some("Lower the task's `max_gen_toks`, or take a model with a longer context.")
            }
            Self::NoBos => Some("Use `bos: tokenizer` or `bos: never`."),
            Self::NotFinite { .. } | Self::ReplyNotFinite { .. } => Some(
                "Look at the checkpoint's weights; in float16 a model can overflow where `dtype: bfloat16` does not.",
            ),
            _ => None,
        }
    }
}

impl From<EvalError> for ActionError {
    fn from(error: EvalError) -> Self {
        let help = error.help();
        let failed = match error {
            EvalError::Io(error) => return error.into(),
            EvalError::Model(error) => return error.into(),
            EvalError::Torch(error) => return error.into(),
            EvalError::NotFinite { .. } | EvalError::ReplyNotFinite { .. } => {
                Self::new(Failure::Deterministic, error.to_string())
            }
            error => Self::user(error.to_string()),
        };
        match help {
            Some(help) => failed.help(help),
            None => failed,
        }
    }
}

fn rule_words(place: &Place, task: &str, rule: &str, problem: &str, origin: Option<&str>) -> String {
    match origin {
        Some(origin) => format!("{origin}: `{rule}`: {problem}, with the row {place}"),
        None => format!("{place}: {task}'s `{rule}`: {problem}"),
    }
}
