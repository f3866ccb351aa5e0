//! Tasks through the model, batch by batch, with what is finished kept.

use std::time::{Duration, Instant};

use super::engine;
use super::error::EvalError;
use super::replies::{self, Prompt, Writer};
use super::row::{self, Row};
use super::task::{Questions, Response, Task};
use super::units;
use crate::context::Context;
use crate::error::ActionError;
use crate::model::Decoder;

/// Answers are published when so many are due …
const UNIT_QUESTIONS: usize = 512;
/// … or so much time went into them.
const UNIT_TIME: Duration = Duration::from_secs(5);

/// A task with its data, ready to be put to the model.
pub(super) struct Prepared {
    pub(super) task: Box<dyn Task>,
    pub(super) questions: Questions,
    pub(super) work: Work,
}

/// A task's documents as tokens.
pub(super) enum Work {
    /// Continuations to be scored, laid out in rows.
    Rows(Vec<Row>),
    /// Prompts to be continued, one a document.
    Prompts(Vec<Prompt>),
}

impl Work {
    /// Tokens that go through the model before anything is written.
    pub(super) fn tokens(&self) -> u64 {
        match self {
            Self::Rows(rows) => rows.iter().map(|row| row.len() as u64).sum(),
            Self::Prompts(prompts) => prompts.iter().map(|prompt| prompt.ids.len() as u64).sum(),
        }
    }
}

/// Answers the documents of a batch.
type Answer<'a> = dyn Fn(&Scorer<'_>, &Vec<usize>) -> Result<Vec<(usize, Response)>, EvalError> + 'a;

/// Puts one task after another to the model, in batches.
pub(super) struct Scorer<'a> {
    context: &'a Context<'a>,
    decoder: &'a Decoder,
    /// What its predictions are compared with.
    reference: Option<&'a Decoder>,
    writer: Writer<'a>,
    batch_tokens: usize,
    /// Questions answered.
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
        batch_tokens: usize,
        tasks: &[Prepared],
    ) -> Self {
        let total = tasks.iter().map(|prepared| prepared.questions.documents.len() as u64).sum();
        Self { context, decoder, reference, writer, batch_tokens, done: 0, total }
    }

    /// The responses to each document of a task, in their order.
    pub(super) fn answer(&mut self, prepared: &Prepared) -> Result<Vec<Response>, ActionError> {
        match &prepared.work {
            Work::Rows(rows) => {
                let batches = row::pack(rows, self.batch_tokens);
                let asked = |batch: &Vec<usize>| -> Vec<usize> {
                    let documents = batch.iter().flat_map(|&row| &rows[row].documents);
                    documents.map(|&(document, _)| document).collect()
                };
                let answer = |this: &Scorer<'_>, batch: &Vec<usize>| {
                    let rows: Vec<&Row> = batch.iter().map(|&row| &rows[row]).collect();
                    let answers = engine::score(this.decoder, this.reference, &rows)?;
                    for (document, response) in &answers {
                        prepared.questions.documents[*document].check_finite(response.scores())?;
                    }
                    Ok(answers)
                };
                self.answer_batches(prepared, &batches, &asked, &answer)
            }
            Work::Prompts(prompts) => {
                let batches = replies::pack(prompts, self.decoder.config(), self.decoder.kind());
                let answer = |this: &Scorer<'_>, batch: &Vec<usize>| {
                    let replies = this.writer.reply(prompts, batch)?.into_iter().map(Response::Reply);
                    Ok(batch.iter().copied().zip(replies).collect())
                };
                self.answer_batches(prepared, &batches, &Vec::clone, &answer)
            }
        }
    }

    /// Has `answer` work on each of the `batches` of which a document was not answered yet; `asked` are a batch's documents.
    fn answer_batches(
        &mut self,
        prepared: &Prepared,
        batches: &[Vec<usize>],
        asked: &dyn Fn(&Vec<usize>) -> Vec<usize>,
        answer: &Answer<'_>,
    ) -> Result<Vec<Response>, ActionError> {
        let (task, documents) = (prepared.task.name(), prepared.questions.documents.len());
        let mut answers = units::read(self.context, task, documents);
        let mut unit = Vec::new();
        let mut first_batch = 0;
        let mut unit_began = Instant::now();
        for (index, batch) in batches.iter().enumerate() {
            let asked = asked(batch);
            if !asked.iter().all(|document| answers.contains_key(document)) {
                if unit.is_empty() {
                    first_batch = index;
                    unit_began = Instant::now();
                }
                unit.extend(answer(self, batch)?);
            }
            self.done += asked.len() as u64;
            self.context.progress(self.done, self.total, "questions", None);
            let stopping = self.context.check_stop();
            let due = unit.len() >= UNIT_QUESTIONS || unit_began.elapsed() >= UNIT_TIME || stopping.is_err();
            if due && !unit.is_empty() {
                answers.extend(unit.iter().cloned());
                units::publish(self.context, task, first_batch, std::mem::take(&mut unit))?;
            }
            stopping?;
        }
        answers.extend(unit);
        let answers: Vec<Response> = answers.into_values().collect();
        assert_eq!(answers.len(), documents, "every document is in one batch");
        Ok(answers)
    }
}
