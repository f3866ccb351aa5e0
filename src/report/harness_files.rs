//! `lm_eval/INSTANCE/`: results and samples in lm-eval's layout, for its tools.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use qpipe_nodes::results::{Filtered, Reply, Sample};
use serde_json::{Value, json};

use super::comparison::Row;
use super::lm_eval::{
    self, Execution, Json, Request, Response, Run, SpecialToken, TokenizerInfo, file_names, task_hash,
};
use super::{ReportError, tasks};

/// Whose rules were followed.
const VERSION: &str = "0.4.13";
/// What lm-eval writes where something is unknown.
const UNKNOWN: &str = "N/A";

/// The answers of one evaluation.
#[derive(Clone, Debug, Default)]
pub struct HarnessAnswers {
    /// When it was made, in seconds since 1970.
    pub time: f64,
    /// The file of samples of each of lm-eval's tasks.
    pub tasks: BTreeMap<String, PathBuf>,
}

/// The files of `row`, whose model is called `model`: their names and their texts.
pub(super) fn files(
    row: &Row,
    model: &str,
    answers: &HarnessAnswers,
) -> Result<Vec<(String, String)>, ReportError> {
    let time = file_names::time(local_time(answers.time));
    let mut files = Vec::new();
    let mut task_hashes = BTreeMap::new();
    for (task, path) in &answers.tasks {
        let samples = read(path)?;
        let mut text = String::new();
        for sample in &samples {
            let line = sample.to_line().map_err(|error| malformed(path, &error.to_string()))?;
            text.push_str(&line);
            text.push('\n');
        }
        let hash = task_hash(&samples).map_err(|error| malformed(path, &error.to_string()))?;
        task_hashes.insert(task.clone(), hash);
        files.push((file_names::samples(task, &time), text));
    }
    let results = lm_eval::results_json(&tasks::results(row), &run(row, model, answers, task_hashes));
    files.push((file_names::results(&time), results.to_pretty()));
    Ok(files)
}

fn local_time(seconds: f64) -> jiff::civil::DateTime {
    let timestamp = jiff::Timestamp::from_millisecond((seconds * 1e3) as i64).unwrap_or_default();
    timestamp.to_zoned(jiff::tz::TimeZone::UTC).datetime()
}

/// What the results file says beside figures.
fn run(row: &Row, model: &str, answers: &HarnessAnswers, task_hashes: BTreeMap<String, String>) -> Run {
    let config = |task: &tasks::TaskFigures| {
        let config = json!({
            "task": task.name,
            "task_alias": task.figures.alias,
            "num_fewshot": task.figures.num_fewshot,
            "output_type": task.figures.output_type,
            "metadata": { "version": task.figures.version },
        });
        (task.name.clone(), Json::from(config))
    };
    let unknown = SpecialToken::default;
    Run {
        configs: row.tasks.iter().map(config).collect(),
        execution: Execution {
            model: "qpipe".to_owned(),
            model_args: Json::from(json!({ "pretrained": model, "dtype": row.dtype })),
            model_info: None,
            batch_size: Json::from(json!("auto")),
            batch_sizes: Vec::new(),
            device: Some(row.device.clone()),
            use_cache: None,
            limit: row.tasks.iter().find(|task| task.n < task.figures.of).map(|task| task.n as f64),
            bootstrap_iters: 0,
            gen_kwargs: Json::from(json!({})),
            random_seed: None,
            numpy_seed: None,
            torch_seed: None,
            fewshot_seed: None,
        },
        git_hash: None,
        date: answers.time,
        pretty_env_info: UNKNOWN.to_owned(),
        transformers_version: UNKNOWN.to_owned(),
        lm_eval_version: VERSION.to_owned(),
        upper_git_hash: None,
        tokenizer: Some(TokenizerInfo {
            pad: unknown(),
            eos: unknown(),
            bos: unknown(),
            eot_token_id: None,
            max_length: None,
        }),
        task_hashes,
        model_source: "qpipe".to_owned(),
        model_name: model.to_owned(),
        system_instruction: None,
        fewshot_as_multiturn: false,
        chat_template: None,
        total_evaluation_seconds: 0.0,
    }
}

fn malformed(path: &Path, message: &str) -> ReportError {
    ReportError::Malformed { path: path.to_owned(), line: 1, column: 0, message: message.to_owned() }
}

fn read(path: &Path) -> Result<Vec<lm_eval::Sample>, ReportError> {
    let mut samples = Vec::new();
    for (index, line) in BufReader::new(fs_err::File::open(path)?).lines().enumerate() {
        let sample: Sample =
            serde_json::from_str(&line?).map_err(|error| ReportError::malformed(path, index + 1, &error))?;
        samples.extend(converted(&sample));
    }
    Ok(samples)
}

/// A question as lm-eval has it: once for each filter.
fn converted(sample: &Sample) -> Vec<lm_eval::Sample> {
    let under = |filtered: &Filtered| lm_eval::Sample {
        doc_id: sample.doc_id,
        requests: match &sample.reply {
            Some(reply) => vec![written(sample, reply, filtered)],
            None if sample.contexts.is_empty() => whole(sample),
            None => scored(sample),
        },
        filter: filtered.filter.clone(),
        metrics: filtered
            .metrics
            .iter()
            .map(|(name, value)| (name.clone(), Json::from(json!(value))))
            .collect(),
        doc: Json::from(sample.doc.clone()),
        target: sample.target.clone(),
    };
    sample.filtered.iter().map(under).collect()
}

fn written(sample: &Sample, reply: &Reply, filtered: &Filtered) -> Request {
    let left = match &filtered.reply {
        None => Response::Text(reply.text.clone()),
        Some(Value::Array(texts)) => Response::Texts(texts.iter().map(text).collect()),
        Some(left) => Response::Text(text(left)),
    };
    let replies = std::iter::once(&reply.text).chain(&reply.more);
    Request {
        prompt: sample.contexts.first().cloned().unwrap_or_default(),
        arguments: vec![Json::from(reply.arguments.clone())],
        responses: replies.cloned().map(Response::Text).collect(),
        filtered: left,
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A text by itself: one score, over all its windows.
fn whole(sample: &Sample) -> Vec<Request> {
    let response = Response::Rolling(sample.scores.iter().sum());
    let request = |text: &String| Request {
        prompt: text.clone(),
        arguments: Vec::new(),
        responses: vec![response.clone(); sample.repeats as usize],
        filtered: response.clone(),
    };
    sample.continuations.iter().map(request).collect()
}

fn scored(sample: &Sample) -> Vec<Request> {
    let context = |index: usize| {
        let own = if sample.contexts.len() == 1 { 0 } else { index };
        sample.contexts.get(own).cloned().unwrap_or_default()
    };
    let answers = sample.scores.iter().zip(&sample.greedy);
    let requests = sample.continuations.iter().zip(answers).enumerate();
    let request = |(index, (continuation, (&log_probability, &is_greedy)))| {
        let response = Response::Continuation { log_probability, is_greedy };
        Request {
            prompt: context(index),
            arguments: vec![Json::from(json!(continuation))],
            responses: vec![response.clone(); sample.repeats as usize],
            filtered: response,
        }
    };
    requests.map(request).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(contexts: &[&str], continuations: &[&str]) -> Sample {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Sample {
            doc_id: 0,
            doc: json!({}),
            target: "0".to_owned(),
            contexts: owned(contexts),
            reply: None,
            continuations: owned(continuations),
            scores: vec![-1.5, -2.5],
            greedy: vec![true, false],
            repeats: 3,
            pred: Some(0),
            gold: vec![0],
            correct: Some(true),
            filtered: vec![Filtered::unfiltered(BTreeMap::new())],
        }
    }

    #[test]
    fn scores_stand_as_often_as_they_count() {
        let chosen = &converted(&sample(&["Is it?"], &[" yes", " no"]))[0].requests;
        let response = |log_probability, is_greedy| Response::Continuation { log_probability, is_greedy };
        assert_eq!(chosen.len(), 2);
        assert_eq!(chosen[1].responses, vec![response(-2.5, false); 3]);
        assert_eq!(chosen[1].filtered, response(-2.5, false));
        // A text in two windows.
        let whole = &converted(&sample(&[], &["It is."]))[0].requests;
        assert_eq!(whole[0].responses, vec![Response::Rolling(-4.0); 3]);
    }
}
