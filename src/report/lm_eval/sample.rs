//! One line of a `samples_*.jsonl`: a document, what the model was asked and answered, and the figures.

use sha2::{Digest, Sha256};

use super::error::LmEvalError;
use super::json::Json;
use super::python;

/// A document that a model answered, under one filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its index in the task, from 0.
    pub doc_id: u64,
    /// As the task's data has it, keys in their order.
    pub doc: Json,
    /// The right answer as Python prints it: `0` for the first choice.
    pub target: String,
    /// One for each choice, or a single one.
    pub requests: Vec<Request>,
    /// `none` for no filter.
    pub filter: String,
    /// What the document adds to each metric.
    pub metrics: Vec<(String, Json)>,
}

/// What a model was asked at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The text that it was given.
    pub prompt: String,
    /// What else the request says: the continuation to score, or how to generate.
    pub arguments: Vec<Json>,
    /// One for each repeat.
    pub responses: Vec<Response>,
    /// What the filter leaves of them.
    pub filtered: Response,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// A continuation was scored.
    Continuation {
        /// The sum over its tokens.
        log_probability: f64,
        /// Whether greedy decoding gives it.
        is_greedy: bool,
    },
    /// A whole text was scored.
    Rolling(f64),
    /// A text was written.
    Text(String),
    /// Several texts were written.
    Texts(Vec<String>),
}

impl Response {
    /// Numbers are texts in these files, so that tools which want one type a column can read them.
    fn to_json(&self) -> Json {
        match self {
            Self::Continuation { log_probability, is_greedy } => {
                vec![python::repr(*log_probability), python::flag(*is_greedy).to_owned()].into()
            }
            Self::Rolling(log_probability) => python::repr(*log_probability).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Texts(texts) => texts.clone().into(),
        }
    }
}

impl Sample {
    /// The line, without its line break.
    ///
    /// # Errors
    ///
    /// If there is no request.
    pub fn to_line(&self) -> Result<String, LmEvalError> {
        let [doc_hash, prompt_hash, target_hash] = self.hashes()?;
        let arguments = self.requests.iter().enumerate().map(|(index, request)| {
            let all =
                [Json::from(request.prompt.as_str())].into_iter().chain(request.arguments.iter().cloned());
            let numbered = all.enumerate().map(|(index, argument)| (format!("arg_{index}"), argument));
            (format!("gen_args_{index}"), Json::object(numbered))
        });
        let responses = self
            .requests
            .iter()
            .map(|request| Json::List(request.responses.iter().map(Response::to_json).collect()));
        let filtered = self.requests.iter().map(|request| request.filtered.to_json());
        let names: Vec<&str> = self.metrics.iter().map(|(name, _)| name.as_str()).collect();
        let fixed = [
            ("doc_id", self.doc_id.into()),
            ("doc", self.doc.clone()),
            ("target", self.target.as_str().into()),
            ("arguments", Json::object(arguments)),
            ("resps", Json::List(responses.collect())),
            ("filtered_resps", Json::List(filtered.collect())),
            ("filter", self.filter.as_str().into()),
            ("metrics", names.into()),
            ("doc_hash", doc_hash.into()),
            ("prompt_hash", prompt_hash.into()),
            ("target_hash", target_hash.into()),
        ];
        let fixed = fixed.into_iter().map(|(key, value)| (key.to_owned(), value));
        Ok(Json::object(fixed.chain(self.metrics.iter().cloned())).to_line())
    }

    /// SHA-256 of the document as indented JSON, of the first prompt, and of the target.
    fn hashes(&self) -> Result<[String; 3], LmEvalError> {
        let first = self.requests.first().ok_or(LmEvalError::NoRequest { doc_id: self.doc_id })?;
        Ok([sha256(&self.doc.to_pretty()), sha256(&first.prompt), sha256(&self.target)])
    }
}

/// The hash of a task: of the hashes of its samples, in the order of the file.
///
/// # Errors
///
/// If a sample has no request.
pub fn task_hash<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Result<String, LmEvalError> {
    let mut joined = String::new();
    for sample in samples {
        joined.extend(sample.hashes()?);
    }
    Ok(sha256(&joined))
}

/// The SHA-256 digest of a text in lower-case hexadecimal.
pub(super) fn sha256(text: &str) -> String {
    format!("{:x}", Sha256::digest(text))
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
