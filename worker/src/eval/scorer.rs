//! Tasks through the model, batch by batch, with what is finished kept.

use std::collections::BTreeMap;
use std::mem;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use qpipe_nodes::protocol::Level;

use super::engine::{self, Responses};
use super::error::EvalError;
use super::lanes::Lanes;
use super::prefixes::{Models, ReadPrefix, Shared};
use super::queue::Queue;
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
/// … but at least such a part of all time that the tasks took so far, so that long tasks do not leave thousands of files.
const UNIT_PART: u32 = 50;

/// A task with its data, ready to be put to the model.
pub(super) struct Prepared {
    pub(super) task: Box<dyn Task>,
    pub(super) questions: Questions,
    pub(super) work: Work,
}

/// Answers, by document.
type Answers = BTreeMap<usize, Response>;

/// Takes the responses to the documents of a task, in their order.
type Take<'a> = dyn FnMut(&Prepared, Vec<Response>) -> Result<(), ActionError> + 'a;

/// Takes answers, or why there are none.
type Give<'a> = dyn FnMut(Result<Responses, EvalError>) -> ControlFlow<()> + 'a;

/// Puts tasks to the model, in batches.
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

    /// Puts `tasks` to the model, and gives the responses to each document of each, in their order, to `take`. Tasks that may be at
    /// work side by side are: lanes then wait for each other once, and not at the end of every task.
    ///
    /// # Errors
    /// Those of the model and of `take`. What was answered before is on disk.
    pub(super) fn answer(&mut self, tasks: &[Prepared], take: &mut Take<'_>) -> Result<(), ActionError> {
        let tasks: Vec<(&Prepared, Lanes)> =
            tasks.iter().map(|task| (task, self.lanes(&task.work))).collect();
        for group in tasks.chunk_by(|(one, lanes), (other, more)| {
            one.work.is_scoring() && other.work.is_scoring() && lanes == more
        }) {
            let lanes = group[0].1;
            let group: Vec<&Prepared> = group.iter().map(|(task, _)| *task).collect();
            for (&task, answers) in group.iter().zip(self.answer_group(&group, lanes)?) {
                let answers: Vec<Response> = answers.into_values().collect();
                assert_eq!(answers.len(), task.questions.documents.len(), "every document is in one batch");
                take(task, answers)?;
                self.context.check_stop()?;
            }
        }
        Ok(())
    }

    /// How many batches of a task may be at work at one time.
    fn lanes(&self, work: &Work) -> Lanes {
        match work {
            Work::Score(batches) => self.room.lanes(self.decoder, batches),
            // Token by token, all weights are read for each: several lanes would read them several times.
            Work::Write { .. } => Lanes::new(1, self.context.threads() as usize),
        }
    }

    /// The answers to each task of `group`, by document.
    fn answer_group(&mut self, group: &[&Prepared], lanes: Lanes) -> Result<Vec<Answers>, ActionError> {
        let known =
            |task: &&Prepared| units::read(self.context, task.task.name(), task.questions.documents.len());
        let mut answers: Vec<Answers> = group.iter().map(known).collect();
        let earlier: usize = answers.iter().map(Answers::len).sum();
        self.done += earlier as u64;
        if earlier > 0 {
            let of: usize = group.iter().map(|task| task.questions.documents.len()).sum();
            let names: Vec<&str> = group.iter().map(|task| task.task.name()).collect();
            let message = format!(
                "{}: goes on after {earlier} of {of} answers of an earlier attempt",
                names.join(", ")
            );
            self.context.log(Level::Info, message);
        }
        let began = Instant::now();
        let lanes = lanes.for_batches(group.iter().map(|task| task.work.len()).sum());
        let open = |task: usize, batch: usize| is_open(&group[task].work, batch, &answers[task]);
        let shared = self.shared(group, lanes, &open)?;
        let (queue, batches) = open_batches(group, &shared, &open);
        let (models, writer) = (self.models(), self.writer.clone());
        let answer = |kept: &mut ReadPrefix, number: usize, give: &mut Give<'_>| {
            let (task, batch) = batches[number];
            if let Err(error) = ask(models, &writer, (&shared, kept), group[task], batch, give) {
                let _ = give(Err(error));
            }
        };
        let mut unit = Unit::of(group.len());
        let mut failure: Option<(usize, ActionError)> = None;
        lanes.run(&queue, &answer, &mut |number, found| {
            let (task, _) = batches[number];
            let kept = found.map_err(ActionError::from).and_then(|mut found| {
                found.retain(|(document, _)| !answers[task].contains_key(document));
                unit.answers[task].extend(found);
                if unit.is_due(began.elapsed()) {
                    self.publish(&mut unit, group, &mut answers)?;
                }
                self.context.progress(self.done, self.total, "questions", None);
                self.context.check_stop()
            });
            match kept {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    // Of several that of the first batch.
                    if failure.as_ref().is_none_or(|(other, _)| number < *other) {
                        failure = Some((number, error));
                    }
                    ControlFlow::Break(())
                }
            }
        });
        let rest = self.publish(&mut unit, group, &mut answers);
        self.context.progress(self.done, self.total, "questions", None);
        // What went wrong first is what is said.
        failure.map_or(rest, |(_, error)| Err(error)).map(|()| answers)
    }

    /// What families begin with, where there are fewer of them than lanes: all threads read such a prefix together, and lanes share it. Where there are
    /// more, each lane reads that of its own. Which it is does not depend on what is open, so that what is resumed has the same bits.
    fn shared(
        &self,
        group: &[&Prepared],
        lanes: Lanes,
        is_open: &dyn Fn(usize, usize) -> bool,
    ) -> Result<Shared, ActionError> {
        let mut shared = Shared::default();
        let families = group.iter().flat_map(|task| task.work.families());
        if lanes.outnumber(families.filter(|(prefix, _)| *prefix > 0).count()) {
            for (index, task) in group.iter().enumerate() {
                for (_, mut family) in task.work.families() {
                    if let Some(prefix) = task.work.prefix(family.start)
                        && family.any(|batch| is_open(index, batch))
                    {
                        shared.add(self.models(), prefix);
                        self.context.check_stop()?;
                    }
                }
            }
        }
        Ok(shared)
    }

    fn models(&self) -> Models<'a> {
        (self.decoder, self.reference)
    }

    /// Writes the answers of `unit`, adds them to those of the `group`, and begins again.
    fn publish(
        &mut self,
        unit: &mut Unit,
        group: &[&Prepared],
        answers: &mut [Answers],
    ) -> Result<(), ActionError> {
        let found = mem::replace(unit, Unit::of(group.len())).answers;
        for ((found, task), answers) in found.into_iter().zip(group).zip(answers) {
            if !found.is_empty() {
                units::publish(self.context, task.task.name(), &found)?;
                self.done += found.len() as u64;
                answers.extend(found);
            }
        }
        Ok(())
    }
}

/// Whether a batch has a document that is not among `answers`.
fn is_open(work: &Work, batch: usize, answers: &Answers) -> bool {
    work.documents(batch).iter().any(|document| !answers.contains_key(document))
}

/// The batches of `group` that are open: in a queue by their numbers, and of each number the task and which of its batches it is.
fn open_batches(
    group: &[&Prepared],
    shared: &Shared,
    is_open: &dyn Fn(usize, usize) -> bool,
) -> (Queue, Vec<(usize, usize)>) {
    let (mut queue, mut batches) = (Queue::default(), Vec::new());
    for (index, task) in group.iter().enumerate() {
        for (length, family) in task.work.families() {
            let is_read = task.work.prefix(family.start).is_some_and(|prefix| shared.of(prefix).is_some());
            let first = batches.len();
            batches.extend(family.filter(|&batch| is_open(index, batch)).map(|batch| (index, batch)));
            let open = batches.iter().enumerate().skip(first);
            let unread = if is_read { 0 } else { length };
            queue.add(unread, open.map(|(number, &(_, batch))| (number, task.work.tokens_of(batch))));
        }
    }
    (queue, batches)
}

/// Puts a batch of `task` to the model.
fn ask(
    models: Models<'_>,
    writer: &Writer<'_>,
    (shared, kept): (&Shared, &mut ReadPrefix),
    task: &Prepared,
    batch: usize,
    give: &mut Give<'_>,
) -> Result<(), EvalError> {
    match &task.work {
        Work::Score(batches) => {
            let batch = &batches[batch];
            let prefix = match shared.of(&batch.prefix) {
                Some(prefix) => prefix,
                None => kept.hold(models, &batch.prefix),
            };
            engine::score(models, prefix, batch, &mut |answers| {
                for (document, response) in &answers {
                    task.questions.documents[*document].check_finite(response.scores())?;
                }
                Ok(give(Ok(answers)))
            })
        }
        Work::Write { prompts, batches } => {
            let replies = writer.reply(prompts, &batches[batch])?.into_iter().map(Response::Reply);
            let _ = give(Ok(batches[batch].iter().copied().zip(replies).collect()));
            Ok(())
        }
    }
}

/// Answers that are not on disk yet.
struct Unit {
    /// Of each task of a group.
    answers: Vec<Responses>,
    began: Instant,
}

impl Unit {
    fn of(tasks: usize) -> Self {
        Self { answers: vec![Responses::new(); tasks], began: Instant::now() }
    }

    /// After `elapsed` time with all tasks.
    fn is_due(&self, elapsed: Duration) -> bool {
        let answers: usize = self.answers.iter().map(Vec::len).sum();
        answers >= UNIT_QUESTIONS || self.began.elapsed() >= UNIT_TIME.max(elapsed / UNIT_PART)
    }
}
