//! Tasks through the model, batch by batch, with what is finished kept.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::engine::{self, Readers, Responses};
use super::error::EvalError;
use super::lanes::{self, Lanes};
use super::replies::Writer;
use super::room::Room;
use super::task::{Questions, Response, Task};
use super::units;
use super::work::Work;
use crate::context::Context;
use crate::error::ActionError;
use crate::model::Decoder;

/// Answers are published when so many are due …
const UNIT_QUESTIONS: usize = 512;
/// … or so much time went into them …
const UNIT_TIME: Duration = Duration::from_millis(500);
/// … but at least such a part of all time that the task took so far, so that long tasks do not leave thousands of files.
const UNIT_PART: u32 = 50;

/// A task with its data, ready to be put to the model.
pub(super) struct Prepared {
    pub(super) task: Box<dyn Task>,
    pub(super) questions: Questions,
    pub(super) work: Work,
}

/// Takes answers, or why there are none.
type Give<'a> = dyn FnMut(Result<Responses, EvalError>) -> ControlFlow<()> + 'a;

/// Puts one task after another to the model, in batches.
pub(super) struct Scorer<'a> {
    context: &'a Context<'a>,
    decoder: &'a Decoder,
    /// What its predictions are compared with.
    reference: Option<&'a Decoder>,
    writer: Writer<'a>,
    room: Room,
    /// Questions whose answers are on disk.
    done: u64,
    /// Questions of all tasks.
    total: u64,
}

impl<'a> Scorer<'a> {
    /// `tasks` are all that will be asked; a second decoder is the one that predictions are compared with.
    pub(super) fn new(
        context: &'a Context<'a>,
        (decoder, reference): (&'a Decoder, Option<&'a Decoder>),
        writer: Writer<'a>,
        room: Room,
        tasks: &[Prepared],
    ) -> Self {
        let total = tasks.iter().map(|prepared| prepared.questions.documents.len() as u64).sum();
        Self { context, decoder, reference, writer, room, done: 0, total }
    }

    /// The responses to each document of a task, in their order.
    pub(super) fn answer(&mut self, prepared: &Prepared) -> Result<Vec<Response>, ActionError> {
        let questions = &prepared.questions;
        let known = units::read(self.context, prepared.task.name(), questions.documents.len());
        let is_open = |document: usize| !known.contains_key(&document);
        let (decoder, reference) = (self.decoder, self.reference);
        let found = match &prepared.work {
            Work::Score(batches) => {
                let score = |kept: &mut Readers, batch: usize, give: &mut Give<'_>| {
                    let check = |answers: &Responses| {
                        let mut each = answers.iter();
                        each.try_for_each(|(document, response)| {
                            questions.documents[*document].check_finite(response.scores())
                        })
                    };
                    let outcome = engine::score(
                        (decoder, reference),
                        kept,
                        &batches[batch],
                        &is_open,
                        &mut |answers| {
                            check(&answers)?;
                            Ok(give(Ok(answers)))
                        },
                    );
                    if let Err(error) = outcome {
                        let _ = give(Err(error));
                    }
                };
                let lanes = self.room.lanes(decoder, batches);
                self.answer_batches(prepared, &known, lanes, &score)?
            }
            Work::Write { prompts, batches } => {
                // Token by token, all weights are read for each: several lanes would read them several times.
                let lanes = Lanes::new(1, self.context.threads() as usize);
                let writer = self.writer.clone();
                let write = |(): &mut (), batch: usize, give: &mut Give<'_>| {
                    let replies = writer.reply(prompts, &batches[batch]);
                    let answers = |replies: Vec<String>| {
                        batches[batch].iter().copied().zip(replies.into_iter().map(Response::Reply)).collect()
                    };
                    let _ = give(replies.map(answers));
                };
                self.answer_batches(prepared, &known, lanes, &write)?
            }
        };
        let mut answers = known;
        answers.extend(found);
        let answers: Vec<Response> = answers.into_values().collect();
        assert_eq!(answers.len(), questions.documents.len(), "every document is in one batch");
        Ok(answers)
    }

    /// Has `answer` work on each batch of which a document is not `known` yet: what it finds.
    fn answer_batches<K: Default>(
        &mut self,
        prepared: &Prepared,
        known: &BTreeMap<usize, Response>,
        lanes: Lanes,
        answer: &lanes::Work<'_, K, Result<Responses, EvalError>>,
    ) -> Result<Responses, ActionError> {
        let (task, work) = (prepared.task.name(), &prepared.work);
        let is_open =
            |&batch: &usize| work.documents(batch).iter().any(|document| !known.contains_key(document));
        let open: Vec<usize> = (0..work.len()).filter(is_open).collect();
        self.done += known.len() as u64;
        let mut answers = Responses::new();
        let began = Instant::now();
        let mut unit = Unit::default();
        let mut failure: Option<(usize, ActionError)> = None;
        lanes.run(&open, answer, &mut |batch, found| {
            let kept = found.map_err(ActionError::from).and_then(|mut found| {
                found.retain(|(document, _)| !known.contains_key(document));
                unit.answers.extend(found);
                if unit.is_due(began.elapsed()) {
                    answers.extend(self.publish(&mut unit, task)?);
                }
                self.context.progress(self.done, self.total, "questions", None);
                self.context.check_stop()
            });
            match kept {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    // Of several that of the first batch.
                    if failure.as_ref().is_none_or(|(other, _)| batch < *other) {
                        failure = Some((batch, error));
                    }
                    ControlFlow::Break(())
                }
            }
        });
        if let Some((_, error)) = failure {
            if !unit.answers.is_empty() {
                // What went wrong first is what is said.
                let _ = self.publish(&mut unit, task);
            }
            return Err(error);
        }
        if !unit.answers.is_empty() {
            answers.extend(self.publish(&mut unit, task)?);
            self.context.progress(self.done, self.total, "questions", None);
        }
        Ok(answers)
    }

    /// Writes the answers of `unit`, hands them out and begins again.
    fn publish(&mut self, unit: &mut Unit, task: &str) -> Result<Responses, ActionError> {
        let Unit { answers, .. } = std::mem::take(unit);
        units::publish(self.context, task, &answers)?;
        self.done += answers.len() as u64;
        Ok(answers)
    }
}

/// Answers that are not on disk yet.
struct Unit {
    answers: Responses,
    began: Instant,
}

impl Default for Unit {
    fn default() -> Self {
        Self { answers: Vec::new(), began: Instant::now() }
    }
}

impl Unit {
    /// After `elapsed` time with the task.
    fn is_due(&self, elapsed: Duration) -> bool {
        let time = UNIT_TIME.max(elapsed / UNIT_PART);
        self.answers.len() >= UNIT_QUESTIONS || self.began.elapsed() >= time && !self.answers.is_empty()
    }
}
