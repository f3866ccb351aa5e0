//! Tasks through the engine, batch by batch, with what is finished kept.

use std::time::{Duration, Instant};

use super::engine;
use super::error::EvalError;
use super::row::{self, Row};
use super::task::{Questions, Score, Task};
use super::units;
use crate::context::Context;
use crate::error::ActionError;
use crate::model::Decoder;

/// Answers are published when so many are due …
const UNIT_QUESTIONS: usize = 512;
/// … or so much time went into them.
const UNIT_TIME: Duration = Duration::from_secs(5);

/// A task with its data, ready to be scored.
pub(super) struct Prepared {
    pub(super) task: Box<dyn Task>,
    pub(super) questions: Questions,
    pub(super) rows: Vec<Row>,
}

/// Scores the documents of one task after another, in batches.
pub(super) struct Scorer<'a> {
    context: &'a Context<'a>,
    decoder: &'a Decoder,
    batch_tokens: usize,
    /// Questions answered.
    done: u64,
    /// Questions of all tasks.
    total: u64,
}

impl<'a> Scorer<'a> {
    /// `tasks` are all that will be scored.
    pub(super) fn new(
        context: &'a Context<'a>,
        decoder: &'a Decoder,
        batch_tokens: usize,
        tasks: &[Prepared],
    ) -> Self {
        let total = tasks.iter().map(|prepared| prepared.questions.documents.len() as u64).sum();
        Self { context, decoder, batch_tokens, done: 0, total }
    }

    /// The scores of each document of a task, in their order.
    pub(super) fn answer(&mut self, prepared: &Prepared) -> Result<Vec<Vec<Score>>, ActionError> {
        let (task, documents) = (prepared.task.name(), prepared.questions.documents.len());
        let mut scores = units::read(self.context, task, documents);
        let mut unit = Vec::new();
        let mut first_batch = 0;
        let mut unit_began = Instant::now();
        for (index, batch) in row::pack(&prepared.rows, self.batch_tokens).iter().enumerate() {
            let rows: Vec<&Row> = batch.iter().map(|&row| &prepared.rows[row]).collect();
            let asked = || rows.iter().flat_map(|row| &row.documents);
            if !asked().all(|(document, _)| scores.contains_key(document)) {
                if unit.is_empty() {
                    first_batch = index;
                    unit_began = Instant::now();
                }
                unit.extend(self.answer_batch(prepared, &rows)?);
            }
            self.done += asked().count() as u64;
            self.context.progress(self.done, self.total, "questions", None);
            let stopping = self.context.check_stop();
            let due = unit.len() >= UNIT_QUESTIONS || unit_began.elapsed() >= UNIT_TIME || stopping.is_err();
            if due && !unit.is_empty() {
                scores.extend(unit.iter().cloned());
                units::publish(self.context, task, first_batch, std::mem::take(&mut unit))?;
            }
            stopping?;
        }
        scores.extend(unit);
        let scores: Vec<Vec<Score>> = scores.into_values().collect();
        assert_eq!(scores.len(), documents, "every document is in one row");
        Ok(scores)
    }

    fn answer_batch(
        &self,
        prepared: &Prepared,
        rows: &[&Row],
    ) -> Result<Vec<(usize, Vec<Score>)>, EvalError> {
        let answers = engine::score(self.decoder, rows)?;
        for (document, scores) in &answers {
            prepared.questions.documents[*document].check_finite(scores)?;
        }
        Ok(answers)
    }
}
