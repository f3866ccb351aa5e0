//! Answers on disk, so that a crash costs at most one unit of each task at work.
//!
//! A unit is a JSON-lines file of responses. Rows are laid out the same way in every attempt (see [`super::layout`]), and a pass
//! of which an answer is missing is computed again as a whole: resumed results are bit-identical,
//! unless there is so much less memory that smaller batches have to do (see [`super::room`]).

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

use fs_err as fs;
use qpipe_nodes::results::Divergence;
use serde::{Deserialize, Serialize};

use super::task::{Response, Score};
use crate::context::Context;
use crate::error::ActionError;

/// A line of a unit: scores, or a reply.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    doc_id: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<String>,
    #[serde(default)]
    scores: Vec<f64>,
    #[serde(default)]
    greedy: Vec<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    divergence: Option<Divergence>,
}

impl Line {
    fn new(doc_id: usize, response: &Response) -> Self {
        let scores = response.scores();
        Self {
            doc_id,
            reply: matches!(response, Response::Reply(_)).then(|| response.reply().to_owned()),
            scores: scores.iter().map(|score| score.log_probability).collect(),
            greedy: scores.iter().map(|score| score.is_greedy).collect(),
            divergence: response.divergence(),
        }
    }

    fn answer(self) -> (usize, Response) {
        let score = |(log_probability, is_greedy)| Score { log_probability, is_greedy };
        let response = match self.reply {
            Some(text) => Response::Reply(text),
            None => {
                let scores = self.scores.into_iter().zip(self.greedy).map(score);
                Response::Scores(scores.collect(), self.divergence)
            }
        };
        (self.doc_id, response)
    }
}

/// The responses of finished units of `task`, by document; `documents` is how many there are. A unit that is not
/// what this task writes is passed over.
pub(super) fn read(context: &Context<'_>, task: &str, documents: usize) -> BTreeMap<usize, Response> {
    // Another task may be called like this one with something behind.
    let is_own = |name: &String| {
        let rest = name.strip_prefix(task).and_then(|rest| rest.strip_prefix('-'));
        let number = rest.and_then(|rest| rest.strip_suffix(".jsonl"));
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut finished = BTreeMap::new();
    for name in context.units().iter().filter(|name| is_own(name)) {
        let Some(text) = context.unit(name).and_then(|path| fs::read_to_string(path).ok()) else { continue };
        let rows: Result<Vec<Line>, _> = text.lines().map(serde_json::from_str).collect();
        if let Ok(rows) = rows
            && rows.iter().all(|row| row.doc_id < documents)
        {
            finished.extend(rows.into_iter().map(Line::answer));
        }
    }
    finished
}

/// Publishes responses. No document of theirs is in another unit, so that the first gives this one its name.
pub(super) fn publish(
    context: &Context<'_>,
    task: &str,
    answers: &[(usize, Response)],
) -> Result<(), ActionError> {
    let first = answers.first().map_or(0, |(document, _)| *document);
    context.publish_unit(&format!("{task}-{first:06}.jsonl"), |path| {
        let mut file = BufWriter::new(fs::File::create(path)?);
        for (doc_id, response) in answers {
            serde_json::to_writer(&mut file, &Line::new(*doc_id, response)).map_err(std::io::Error::from)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        Ok(())
    })
}
