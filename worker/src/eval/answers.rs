//! The answers to a task's questions as files, and what they come to.

use std::io::{BufWriter, Write};
use std::sync::Arc;

use fs_err as fs;
use qpipe_nodes::kinds::Evaluate;
use qpipe_nodes::results::{Answer, HarnessResult, MetricResult, Sample, TaskResult};
use serde::Serialize;

use super::harness::metric_is_better_when_higher;
use super::scorer::Prepared;
use super::task::{Document, Judgement, Score, Source, TaskOptions};
use crate::context::Context;
use crate::error::ActionError;

/// Writes `TASK.jsonl` and sums it up. `scores` are those of each document.
pub(super) fn write(
    context: &Context<'_>,
    prepared: &Prepared,
    scores: &[Vec<Score>],
    parameters: &Evaluate,
    options: &TaskOptions<'_>,
) -> Result<TaskResult, ActionError> {
    let task = &prepared.task;
    let file = context.out()?.join(format!("{}.jsonl", task.name()));
    let mut file = BufWriter::new(fs::File::create(file)?);
    let mut judgements = Vec::with_capacity(scores.len());
    let mut correct = 0;
    for (index, (document, scores)) in prepared.questions.documents.iter().zip(scores).enumerate() {
        let judgement = task.judge(document, scores);
        correct += u64::from(document.gold.contains(&judgement.pred));
        match &document.source {
            Some(source) => {
                write_line(&mut file, &sample(index, document, source, scores, judgement.clone()))?;
            }
            None => write_line(&mut file, &answer(index, document, scores, &judgement))?,
        }
        judgements.push(judgement);
    }
    file.flush()?;
    let harness = task.definition(options).map(|definition| HarnessResult {
        alias: definition.alias,
        version: definition.version,
        num_fewshot: definition.num_fewshot,
        of: prepared.questions.of,
        metrics: metrics(definition.metrics, &judgements),
    });
    let n = judgements.len() as u64;
    Ok(TaskResult {
        n,
        correct,
        accuracy: correct as f64 / n as f64,
        candidates: parameters.candidates,
        bos: parameters.bos.unwrap_or(task.rules().bos),
        tokens: prepared.rows.iter().map(|row| row.len() as u64).sum(),
        harness,
    })
}

fn write_line(file: &mut impl Write, line: &impl Serialize) -> Result<(), ActionError> {
    serde_json::to_writer(&mut *file, line).map_err(std::io::Error::from)?;
    Ok(file.write_all(b"\n")?)
}

fn log_probabilities(scores: &[Score]) -> Vec<f64> {
    scores.iter().map(|score| score.log_probability).collect()
}

fn answer(index: usize, document: &Document, scores: &[Score], judgement: &Judgement) -> Answer {
    let (pred, gold) = (judgement.pred, document.gold.first().copied().unwrap_or_default());
    Answer {
        doc_id: index as u64,
        scores: log_probabilities(scores),
        pred,
        gold,
        correct: document.gold.contains(&pred),
    }
}

fn sample(
    index: usize,
    document: &Document,
    source: &Source,
    scores: &[Score],
    judgement: Judgement,
) -> Sample {
    let requests = &document.requests;
    let mut contexts: Vec<&Arc<str>> = requests.iter().map(|request| &request.context).collect();
    if contexts.iter().all(|context| *context == contexts[0]) {
        contexts.truncate(1);
    }
    Sample {
        doc_id: index as u64,
        doc: source.row.clone(),
        target: source.target.clone(),
        contexts: contexts.into_iter().map(ToString::to_string).collect(),
        continuations: requests.iter().map(|request| request.continuation.clone()).collect(),
        scores: log_probabilities(scores),
        greedy: scores.iter().map(|score| score.is_greedy).collect(),
        pred: judgement.pred,
        gold: document.gold.clone(),
        metrics: judgement.metrics,
    }
}

/// The mean of each metric over all questions, sorted by name.
fn metrics(mut names: Vec<&'static str>, judgements: &[Judgement]) -> Vec<MetricResult> {
    names.sort_unstable();
    let of = |name: &'static str| {
        let values: Vec<f64> =
            judgements.iter().filter_map(|judgement| judgement.metrics.get(name).copied()).collect();
        let (value, stderr) = mean(&values);
        let higher_is_better = metric_is_better_when_higher(name);
        MetricResult { name: name.to_owned(), value, stderr, higher_is_better }
    };
    names.into_iter().map(of).collect()
}

/// The mean and its standard error, the sample's standard deviation (n - 1) over √n; none of fewer than two values.
fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt() / n.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_a_sample() {
        let (value, stderr) = mean(&[1.0, 0.0, 1.0, 1.0]);
        assert_eq!(value, 0.75);
        // √(p (1 - p) / (n - 1))
        assert!(stderr.is_some_and(|stderr| (stderr - (0.75_f64 * 0.25 / 3.0).sqrt()).abs() < 1e-15));
        assert_eq!(mean(&[1.0]), (1.0, None));
    }
}
