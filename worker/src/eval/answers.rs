//! The answers to a task's questions as files, and what they come to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use fs_err as fs;
use qpipe_nodes::kinds::Evaluate;
use qpipe_nodes::results::{
    Answer, Divergence, Figure, HarnessResult, MetricResult, Reply, Sample, TaskResult,
};
use qpipe_nodes::task_file::more_is_better;
use serde::Serialize;

use super::error::EvalError;
use super::harness::perplexity;
use super::metrics;
use super::scorer::Prepared;
use super::task::{Asked, Document, Judgement, Request, Response, Score, Source, TaskOptions};
use crate::context::Context;
use crate::error::ActionError;

/// Writes `TASK.jsonl` and sums it up. `responses` are those to each document.
pub(super) fn write(
    context: &Context<'_>,
    prepared: &Prepared,
    responses: &[Response],
    parameters: &Evaluate,
    options: &TaskOptions<'_>,
) -> Result<TaskResult, ActionError> {
    let task = &prepared.task;
    let file = context.out()?.join(format!("{}.jsonl", task.name()));
    let mut file = BufWriter::new(fs::File::create(file)?);
    let mut judgements = Vec::with_capacity(responses.len());
    let (times, repeats) = (prepared.questions.times, prepared.questions.repeats);
    let documents = prepared.questions.documents.iter().step_by(times);
    for (index, (document, responses)) in documents.zip(responses.chunks(times)).enumerate() {
        let responses = repeated(document, responses, repeats);
        let judgement = task.judge(document, &responses)?;
        match &document.source {
            Some(source) => {
                let sample = sample(index, document, source, &responses, repeats, &judgement);
                write_line(&mut file, &sample)?;
            }
            None => write_line(&mut file, &answer(index, document, &responses[0], &judgement))?,
        }
        judgements.push(judgement);
    }
    file.flush()?;
    let figures = metrics(&judgements, context.threads() as usize)
        .map_err(|problem| EvalError::TaskFile { task: task.name().to_owned(), problem })?;
    let harness = task.definition(options).map(|definition| HarnessResult {
        alias: definition.alias,
        version: definition.version,
        num_fewshot: definition.num_fewshot,
        of: prepared.questions.of,
        output_type: definition.output_type.to_owned(),
        metrics: figures,
    });
    let n = judgements.len() as u64;
    let verdicts: Option<Vec<bool>> = judgements.iter().map(|judgement| judgement.is_right).collect();
    let correct = verdicts.map(|verdicts| verdicts.into_iter().filter(|&is_right| is_right).count() as u64);
    Ok(TaskResult {
        n,
        correct,
        accuracy: correct.map(|correct| correct as f64 / n as f64),
        candidates: parameters.candidates,
        bos: parameters.bos.unwrap_or(task.rules().bos),
        tokens: prepared.work.tokens(),
        divergence: responses.iter().filter_map(Response::divergence).reduce(Divergence::and),
        harness,
    })
}

/// A response for each time that a question is asked: replies of which none is drawn are the same.
fn repeated<'a>(document: &Document, responses: &'a [Response], repeats: usize) -> Cow<'a, [Response]> {
    match (&document.asked, responses) {
        (Asked::Reply(_), [response]) if repeats > 1 => Cow::Owned(vec![response.clone(); repeats]),
        _ => Cow::Borrowed(responses),
    }
}

fn write_line(file: &mut impl Write, line: &impl Serialize) -> Result<(), ActionError> {
    serde_json::to_writer(&mut *file, line).map_err(std::io::Error::from)?;
    Ok(file.write_all(b"\n")?)
}

fn log_probabilities(scores: &[Score]) -> Vec<f64> {
    scores.iter().map(|score| score.log_probability).collect()
}

fn answer(index: usize, document: &Document, response: &Response, judgement: &Judgement) -> Answer {
    Answer {
        doc_id: index as u64,
        scores: log_probabilities(response.scores()),
        pred: judgement.pred.unwrap_or_default(),
        gold: document.gold.first().copied().unwrap_or_default(),
        correct: judgement.is_right.unwrap_or_default(),
    }
}

fn sample(
    index: usize,
    document: &Document,
    source: &Source,
    responses: &[Response],
    repeats: usize,
    judgement: &Judgement,
) -> Sample {
    let continuations = |requests: &[Request]| {
        requests.iter().map(|request| request.continuation.clone()).collect::<Vec<_>>()
    };
    let (contexts, continuations, reply) = match &document.asked {
        Asked::Continuations(requests) => (contexts(requests), continuations(requests), None),
        Asked::Text(text) => (Vec::new(), vec![text.text.clone()], None),
        Asked::Reply(generation) => {
            let arguments = generation.rule.arguments.clone();
            let mut replies = responses.iter().map(|response| response.reply().to_owned());
            let text = replies.next().unwrap_or_default();
            let reply = Reply { text, more: replies.collect(), arguments };
            (vec![generation.prompt.to_string()], Vec::new(), Some(reply))
        }
    };
    let scores = responses.first().map_or(&[][..], Response::scores);
    Sample {
        doc_id: index as u64,
        doc: source.row.clone(),
        target: source.target.clone(),
        contexts,
        reply,
        continuations,
        scores: log_probabilities(scores),
        greedy: scores.iter().map(|score| score.is_greedy).collect(),
        pred: judgement.pred,
        repeats: repeats as u32,
        gold: document.gold.clone(),
        correct: judgement.is_right,
        filtered: judgement.filtered.clone(),
    }
}

/// What stands before the continuations: once where it is the same.
fn contexts(requests: &[Request]) -> Vec<String> {
    let mut contexts: Vec<&Arc<str>> = requests.iter().map(|request| &request.context).collect();
    if contexts.iter().all(|context| *context == contexts[0]) {
        contexts.truncate(1);
    }
    contexts.into_iter().map(ToString::to_string).collect()
}

/// Each metric over all questions, sorted by name and filter; on `threads` threads.
///
/// # Errors
/// In words, when a metric has no meaning for these questions.
fn metrics(judgements: &[Judgement], threads: usize) -> Result<Vec<MetricResult>, String> {
    let mut figures: BTreeMap<(&str, &str), Vec<&Figure>> = BTreeMap::new();
    for filtered in judgements.iter().flat_map(|judgement| &judgement.filtered) {
        for (name, figure) in &filtered.metrics {
            figures.entry((name, &filtered.filter)).or_default().push(figure);
        }
    }
    let of = |((name, filter), figures): ((&str, &str), Vec<&Figure>)| {
        let (value, stderr) = match metrics::named(name) {
            Some(metric) => metrics::together(metric, &figures, threads)?,
            None => together(name, &figures),
        };
        let higher_is_better = more_is_better(name);
        Ok(MetricResult { name: name.to_owned(), filter: filter.to_owned(), value, stderr, higher_is_better })
    };
    figures.into_iter().map(of).collect()
}

/// The metric `name` of its figures. Several verdicts a question have no standard error: they depend on each other; nor
/// have quotients of sums.
fn together(name: &str, figures: &[&Figure]) -> (f64, Option<f64>) {
    let as_number = |flag: bool| f64::from(u8::from(flag));
    let mut values = Vec::with_capacity(figures.len());
    let mut is_joined = false;
    let mut sums = None;
    for figure in figures {
        match figure {
            Figure::Flag(flag) => values.push(as_number(*flag)),
            Figure::Number(number) => values.push(*number),
            Figure::Each(verdicts) => {
                is_joined = true;
                values.extend(verdicts.iter().copied().map(as_number));
            }
            Figure::Share([log_likelihood, count]) => {
                let (likelihoods, counts) = sums.get_or_insert((0.0, 0.0));
                *likelihoods += log_likelihood;
                *counts += count;
            }
            // Those are of metrics of all questions together.
            Figure::Labels(_) | Figure::Texts(_) => {}
        }
    }
    if let Some((log_likelihood, count)) = sums {
        return (perplexity::together(name, log_likelihood, count), None);
    }
    let (value, stderr) = mean(&values);
    (value, stderr.filter(|_| !is_joined))
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

    #[test]
    fn verdicts_are_counted_over_all_questions() {
        let figures = [Figure::Each(vec![true, false, true]), Figure::Each(vec![true])];
        assert_eq!(together("x", &figures.each_ref()), (0.75, None));
        let flags = [Figure::Flag(true), Figure::Flag(false)];
        assert_eq!(together("x", &flags.each_ref()), (0.5, Some(0.5)));
    }
}
