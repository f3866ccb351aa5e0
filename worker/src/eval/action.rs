//! The `evaluate` action.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use qpipe_nodes::kinds::Evaluate;
use qpipe_nodes::protocol::Level;
use qpipe_nodes::results::{
    Answer, EVALUATION_FILE, Evaluation, QUANTIZATION_FILE, Quantization, TaskResult,
};
use serde_json::Value;

use super::error::EvalError;
use super::row::{self, Row};
use super::sequences::Encoder;
use super::task::{Document, Task, TaskOptions};
use super::{TASKS, engine, units};
use crate::context::{Context, Facts};
use crate::error::ActionError;
use crate::model::Decoder;
use crate::torch;

/// Answers are published when so many are due …
const UNIT_QUESTIONS: usize = 512;
/// … or so much time went into them.
const UNIT_TIME: Duration = Duration::from_secs(5);

/// A task with its data as text.
type TaskDocuments = (&'static dyn Task, Vec<Document>);

/// A task with its data, ready to be scored.
struct Prepared {
    task: &'static dyn Task,
    documents: Vec<Document>,
    rows: Vec<Row>,
}

/// Scores a model on tasks: `TASK.jsonl` with an [`Answer`] a question, and `evaluation.json`.
///
/// # Errors
/// When the data, the tokenizer or the checkpoint are wrong, or a score is not a number.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    let parameters: Evaluate = context.params()?;
    // Questions are read and counted in tokens before any weight is: mistakes in the data show at once.
    let documents = read_tasks(context, &parameters)?;
    let (checkpoint, tokenizer) = engine::open(context.input("model")?)?;
    if let Some(tensor) = checkpoint.beyond_layers() {
        let layers = checkpoint.config.layers;
        let message = format!(
            "{}: `num_hidden_layers` is {layers}, but the weights have `{tensor}`, which is ignored",
            checkpoint.config.file.display()
        );
        context.log(Level::Warn, message);
    }
    let encoder = Encoder::new(&tokenizer, parameters.bos, checkpoint.config.max_positions)?;
    let mut prepared = Vec::new();
    for (task, documents) in documents {
        let rows = encoder.encode_all(&documents)?.iter().map(Row::new).collect();
        prepared.push(Prepared { task, documents, rows });
    }
    let decoder = engine::load(&checkpoint, context.device(), parameters.dtype)?;
    let mut scorer = Scorer {
        context,
        decoder: &decoder,
        batch_tokens: parameters.batch_tokens as usize,
        done: 0,
        total: prepared.iter().map(|prepared| prepared.rows.len() as u64).sum(),
    };
    let mut tasks = BTreeMap::new();
    for prepared in &prepared {
        let answers = scorer.answer(prepared)?;
        write_answers(context, prepared.task.name(), &answers)?;
        tasks.insert(prepared.task.name().to_owned(), summarize(&parameters, prepared, &answers));
    }
    let facts = facts(&tasks);
    let evaluation = Evaluation {
        tasks,
        dtype: torch::kind_name(decoder.kind()).to_owned(),
        device: torch::device_name(context.device()).to_owned(),
        scheme: decoder.scheme_name(),
        quantization: quantization_of(context.input("model")?)?,
    };
    context.write_json(EVALUATION_FILE, &evaluation)?;
    Ok(facts)
}

/// What the model's folder says of its quantization, if qpipe did it.
fn quantization_of(model: &Path) -> Result<Option<Quantization>, ActionError> {
    let file = model.join(QUANTIZATION_FILE);
    if !file.is_file() {
        return Ok(None);
    }
    serde_json::from_slice(&fs::read(&file)?)
        .map(Some)
        .map_err(|error| ActionError::user(format!("{}: {error}", file.display())))
}

fn read_tasks(context: &Context<'_>, parameters: &Evaluate) -> Result<Vec<TaskDocuments>, EvalError> {
    let options = TaskOptions {
        topic: parameters.topic.as_deref().unwrap_or_default(),
        candidates: parameters.candidates,
        limit: parameters.limit,
    };
    let inputs = context.inputs("data");
    let mut tasks = Vec::new();
    for name in &parameters.tasks {
        let task = *TASKS
            .iter()
            .find(|task| task.name() == name)
            .ok_or_else(|| EvalError::UnknownTask(name.clone()))?;
        tasks.push((task, task.documents(data_of(&inputs, name)?, &options)?));
    }
    Ok(tasks)
}

/// The data of a task: a single input serves all of them.
fn data_of<'a>(inputs: &'a [(String, PathBuf)], task: &str) -> Result<&'a PathBuf, EvalError> {
    inputs
        .iter()
        .find(|(name, _)| name.is_empty() || name == task)
        .map(|(_, path)| path)
        .ok_or_else(|| EvalError::MissingData(task.to_owned()))
}

/// Scores the documents of one task after another, in batches.
struct Scorer<'a> {
    context: &'a Context<'a>,
    decoder: &'a Decoder,
    batch_tokens: usize,
    /// Questions answered.
    done: u64,
    /// Questions of all tasks.
    total: u64,
}

impl Scorer<'_> {
    fn answer(&mut self, prepared: &Prepared) -> Result<Vec<Answer>, ActionError> {
        let task = prepared.task.name();
        let mut scores = units::read(self.context, task, prepared.rows.len());
        let mut unit = Vec::new();
        let mut first_batch = 0;
        let mut unit_began = Instant::now();
        for (index, batch) in row::pack(&prepared.rows, self.batch_tokens).iter().enumerate() {
            if !batch.iter().all(|document| scores.contains_key(document)) {
                if unit.is_empty() {
                    first_batch = index;
                    unit_began = Instant::now();
                }
                unit.extend(self.answer_batch(prepared, batch)?);
            }
            self.done += batch.len() as u64;
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
        let answer = |(index, document): (usize, &Document)| answer(index, document, scores.remove(&index)?);
        let answers: Vec<Answer> = prepared.documents.iter().enumerate().filter_map(answer).collect();
        assert_eq!(answers.len(), prepared.documents.len(), "every document is in one batch");
        Ok(answers)
    }

    fn answer_batch(
        &self,
        prepared: &Prepared,
        batch: &[usize],
    ) -> Result<Vec<(usize, Vec<f64>)>, EvalError> {
        let rows: Vec<&Row> = batch.iter().map(|&document| &prepared.rows[document]).collect();
        let scores = engine::score(self.decoder, &rows)?;
        for (&document, scores) in batch.iter().zip(&scores) {
            prepared.documents[document].check_finite(scores)?;
        }
        Ok(batch.iter().copied().zip(scores).collect())
    }
}

fn answer(index: usize, document: &Document, scores: Vec<f64>) -> Option<Answer> {
    let pred = first_highest(&scores)? as u32;
    let gold = document.gold;
    Some(Answer { doc_id: index as u64, scores, pred, gold, correct: pred == gold })
}

/// Index of the highest score, the first of equals.
fn first_highest(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).reduce(|best, index| if scores[index] > scores[best] { index } else { best })
}

fn write_answers(context: &Context<'_>, task: &str, answers: &[Answer]) -> Result<(), ActionError> {
    let mut file = BufWriter::new(fs::File::create(context.out()?.join(format!("{task}.jsonl")))?);
    for answer in answers {
        serde_json::to_writer(&mut file, answer).map_err(std::io::Error::from)?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(())
}

fn summarize(parameters: &Evaluate, prepared: &Prepared, answers: &[Answer]) -> TaskResult {
    let n = answers.len() as u64;
    let correct = answers.iter().filter(|answer| answer.correct).count() as u64;
    TaskResult {
        n,
        correct,
        accuracy: correct as f64 / n as f64,
        candidates: parameters.candidates,
        bos: parameters.bos,
        tokens: prepared.rows.iter().map(|row| row.len() as u64).sum(),
    }
}

fn facts(tasks: &BTreeMap<String, TaskResult>) -> Facts {
    let mut facts = Facts::new();
    facts.insert("questions".to_owned(), Value::from(tasks.values().map(|task| task.n).sum::<u64>()));
    facts.insert("tokens".to_owned(), Value::from(tasks.values().map(|task| task.tokens).sum::<u64>()));
    for (name, task) in tasks {
        facts.insert(format!("{name}_accuracy"), Value::from(task.accuracy));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(first_highest(&[-2.0, -1.0, -1.0, -3.0]), Some(1));
        assert_eq!(first_highest(&[]), None);
    }
}
