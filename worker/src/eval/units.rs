//! Finished batches of answers on disk, so that a crash costs at most one unit.
//!
//! A unit is a JSON-lines file of the scores of whole batches. Batches are packed the same way in every attempt
//! (see [`super::row::pack`]), and a batch of which an answer is missing is computed again as a whole: resumed
//! results are bit-identical.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::task::Score;
use crate::context::Context;
use crate::error::ActionError;

/// A line of a unit.
#[derive(Debug, Serialize, Deserialize)]
struct Scored {
    doc_id: usize,
    scores: Vec<f64>,
    greedy: Vec<bool>,
}

impl Scored {
    fn new(doc_id: usize, scores: &[Score]) -> Self {
        Self {
            doc_id,
            scores: scores.iter().map(|score| score.log_probability).collect(),
            greedy: scores.iter().map(|score| score.is_greedy).collect(),
        }
    }

    fn answer(self) -> (usize, Vec<Score>) {
        let score = |(log_probability, is_greedy)| Score { log_probability, is_greedy };
        (self.doc_id, self.scores.into_iter().zip(self.greedy).map(score).collect())
    }
}

/// The scores of finished units of `task`, by document; `documents` is how many there are. A unit that is not
/// what this task writes is passed over.
pub(super) fn read(context: &Context<'_>, task: &str, documents: usize) -> BTreeMap<usize, Vec<Score>> {
    let prefix = format!("{task}-");
    let mut finished = BTreeMap::new();
    for name in context.units().iter().filter(|name| name.starts_with(&prefix)) {
        let Some(text) = context.unit(name).and_then(|path| fs::read_to_string(path).ok()) else { continue };
        let rows: Result<Vec<Scored>, _> = text.lines().map(serde_json::from_str).collect();
        if let Ok(rows) = rows
            && rows.iter().all(|row| row.doc_id < documents)
        {
            finished.extend(rows.into_iter().map(Scored::answer));
        }
    }
    finished
}

/// Publishes the scores of whole batches, of which `first_batch` is the first.
pub(super) fn publish(
    context: &Context<'_>,
    task: &str,
    first_batch: usize,
    answers: Vec<(usize, Vec<Score>)>,
) -> Result<(), ActionError> {
    context.publish_unit(&format!("{task}-{first_batch:06}.jsonl"), |path| {
        let mut file = BufWriter::new(fs::File::create(path)?);
        for (doc_id, scores) in answers {
            serde_json::to_writer(&mut file, &Scored::new(doc_id, &scores)).map_err(std::io::Error::from)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        Ok(())
    })
}
