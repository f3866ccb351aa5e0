//! Prints what `tests/parity/lm_eval_table.py` compares with lm-eval: one JSON object a line in, one out.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};

use qpipe::report::lm_eval::{
    Execution, Json, PrintedTable, Request, Response, Results, Run, Sample, TableVersion, groups_table,
    results_json, task_hash, tasks_table,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Case {
    version: TableVersion,
    results: Results,
    /// The metrics that each group sums up.
    aggregate: BTreeMap<String, Vec<String>>,
    samples: Vec<SampleCase>,
}

#[derive(Deserialize)]
struct SampleCase {
    doc_id: u64,
    doc: Json,
    target: String,
    prompt: String,
    /// (continuation, its log-probability, whether it is greedy).
    choices: Vec<(String, f64, bool)>,
    filter: String,
    metrics: Vec<(String, f64)>,
}

#[derive(Serialize)]
struct Answer {
    tasks: String,
    groups: Option<String>,
    /// The two, read and printed again.
    again: Vec<String>,
    file: String,
    lines: Vec<String>,
    task_hash: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = answer(serde_json::from_str(&line?)?)?;
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

fn answer(case: Case) -> Result<Answer, Box<dyn Error>> {
    let mut results = case.results;
    for (name, metrics) in &case.aggregate {
        let figures = metrics.iter().flat_map(|metric| results.aggregate(name, metric)).collect();
        if let Some(group) = results.groups.get_mut(name) {
            group.metrics = figures;
        }
    }
    let tasks = tasks_table(&results, case.version);
    let groups = groups_table(&results, case.version);
    let again = [Some(&tasks), groups.as_ref()].into_iter().flatten();
    let again =
        again.map(|table| Ok(PrintedTable::parse(table)?.print())).collect::<Result<_, Box<dyn Error>>>()?;
    let samples: Vec<Sample> = case.samples.into_iter().map(sample).collect();
    let lines = samples.iter().map(Sample::to_line).collect::<Result<_, _>>()?;
    Ok(Answer {
        tasks,
        groups,
        again,
        file: results_json(&results, &run()).to_pretty(),
        lines,
        task_hash: task_hash(&samples)?,
    })
}

fn sample(case: SampleCase) -> Sample {
    let requests = case.choices.into_iter().map(|(continuation, log_probability, is_greedy)| {
        let response = Response::Continuation { log_probability, is_greedy };
        Request {
            prompt: case.prompt.clone(),
            arguments: vec![continuation.into()],
            responses: vec![response.clone()],
            filtered: response,
        }
    });
    Sample {
        doc_id: case.doc_id,
        doc: case.doc,
        target: case.target,
        requests: requests.collect(),
        filter: case.filter,
        metrics: case.metrics.into_iter().map(|(name, value)| (name, value.into())).collect(),
    }
}

/// A run of nothing.
fn run() -> Run {
    Run {
        configs: BTreeMap::new(),
        execution: Execution {
            model: "none".into(),
            model_args: Json::Null,
            model_info: None,
            batch_size: Json::Null,
            batch_sizes: Vec::new(),
            device: None,
            use_cache: None,
            limit: None,
            bootstrap_iters: 0,
            gen_kwargs: Json::Null,
            random_seed: None,
            numpy_seed: None,
            torch_seed: None,
            fewshot_seed: None,
        },
        git_hash: None,
        date: 0.0,
        pretty_env_info: String::new(),
        transformers_version: "N/A".into(),
        lm_eval_version: "N/A".into(),
        upper_git_hash: None,
        tokenizer: None,
        task_hashes: BTreeMap::new(),
        model_source: "none".into(),
        model_name: "none".into(),
        system_instruction: None,
        fewshot_as_multiturn: false,
        chat_template: None,
        total_evaluation_seconds: 0.0,
    }
}
