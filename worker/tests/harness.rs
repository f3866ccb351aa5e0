//! `evaluate` on lm-eval's tasks, question by question against what lm-eval 0.4.13.dev0 logged for the real checkpoint
//! `hf/stories260K` (QPIPE_TEST_DATA). tests/parity/harness.py compares with lm-eval side by side: more tasks, examples,
//! conversations.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use fs_err as fs;
use qpipe_nodes::protocol::{Action, Device, Event, Input};
use qpipe_nodes::results::{Evaluation, Sample};
use qpipe_worker::actions::ACTIONS;
use qpipe_worker::context::{Context, Events};
use serde_json::{Value, json};

/// How far log-likelihoods may lie from lm-eval's, in float32.
const TOLERANCE: f64 = 1e-3;

struct Silence;

impl Events for Silence {
    fn send(&self, _event: &Event) {}
}

fn test_data() -> Option<PathBuf> {
    let data = std::env::var_os("QPIPE_TEST_DATA").map(PathBuf::from);
    if data.is_none() {
        #[expect(clippy::print_stdout, reason = "a skipped test says so")]
        {
            println!("skipped: QPIPE_TEST_DATA is not set");
        }
    }
    data
}

fn evaluate(model: &Path, data: &Path, params: Value, scratch: &Path) -> Evaluation {
    let action = Action {
        id: 1,
        kind: "evaluate".to_owned(),
        params,
        inputs: [("model", model), ("data", data)]
            .map(|(port, path)| (port.to_owned(), Input::One(path.to_owned())))
            .into(),
        scratch: scratch.to_owned(),
        device: Device::Cpu,
        threads: 1,
        max_memory: None,
    };
    let (_, run) = ACTIONS.iter().find(|(name, _)| *name == "evaluate").unwrap();
    run(&Context::new(&action, &Silence, &AtomicBool::new(false))).unwrap();
    let text = fs::read_to_string(scratch.join("out/evaluation.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The first file below `folder` whose name begins so.
fn beginning(folder: &Path, name: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name)).unwrap()
}

fn assert_equal(task: &str, ours: &Sample, theirs: &Value) {
    let place = format!("{task}, question {}", ours.doc_id);
    assert_eq!(theirs["doc_id"], ours.doc_id, "{place}");
    assert_eq!(theirs["doc"].to_string(), ours.doc.to_string(), "{place}");
    assert_eq!(theirs["target"], ours.target.as_str(), "{place}");
    for (index, continuation) in ours.continuations.iter().enumerate() {
        let context = ours.contexts.get(index).unwrap_or(&ours.contexts[0]);
        let asked = &theirs["arguments"][format!("gen_args_{index}")];
        assert_eq!((&asked["arg_0"], &asked["arg_1"]), (&json!(context), &json!(continuation)), "{place}");
        let answer = &theirs["filtered_resps"][index];
        let score: f64 = answer[0].as_str().unwrap().parse().unwrap();
        assert!((score - ours.scores[index]).abs() < TOLERANCE, "{place}: {} {score}", ours.scores[index]);
        assert_eq!(answer[1] == "True", ours.greedy[index], "{place}");
    }
    for (metric, value) in &ours.filtered[0].metrics {
        assert_eq!(theirs[metric.as_str()], json!(value), "{place}: {metric}");
    }
}

#[test]
fn questions_are_those_of_lm_eval_and_so_are_the_answers() {
    let Some(root) = test_data() else { return };
    let model = root.join("hf/stories260K");
    for (golden, data, task, limit) in [
        ("out_mc_0shot", "arc_easy", "arc_easy", 40),
        ("out_mc_0shot", "hellaswag", "hellaswag", 10),
        ("out_mmlu_0shot", "mmlu", "mmlu_anatomy", 5),
        ("out_mmlu_0shot", "mmlu", "mmlu_world_religions", 5),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let params = json!({"tasks": [task], "limit": limit});
        let evaluation = evaluate(&model, &root.join(data), params, scratch.path());
        let ours: Vec<Sample> = lines(&scratch.path().join(format!("out/{task}.jsonl")));
        let folder = root.join("golden_lm_eval").join(golden);
        let theirs: Vec<Value> = lines(&beginning(&folder, &format!("samples_{task}_")));
        assert_eq!(ours.len(), limit);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_equal(task, ours, theirs);
        }
        let harness = evaluation.tasks[task].harness.as_ref().unwrap();
        assert_eq!((&harness.version, harness.num_fewshot), (&json!(1.0), 0));
        if theirs.len() == limit {
            let text = fs::read_to_string(beginning(&folder, "results_")).unwrap();
            let results: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(results["n-samples"][task]["original"], harness.of);
            for metric in &harness.metrics {
                let figure = |part: &str| {
                    results["results"][task][format!("{}{part},none", metric.name)].as_f64().unwrap()
                };
                assert!((figure("") - metric.value).abs() < 1e-12);
                assert!((figure("_stderr") - metric.stderr.unwrap()).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn examples_come_from_their_split_and_what_is_missing_is_named() {
    let Some(root) = test_data() else { return };
    let model = root.join("hf/stories260K");
    let scratch = tempfile::tempdir().unwrap();
    let params = json!({"tasks": ["mmlu_anatomy"], "limit": 2, "num_fewshot": 1});
    evaluate(&model, &root.join("mmlu"), params, scratch.path());
    let samples: Vec<Sample> = lines(&scratch.path().join("out/mmlu_anatomy.jsonl"));
    let dev = fs::read_to_string(root.join("mmlu/dev.jsonl")).unwrap();
    let rows = dev.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let first = rows.into_iter().find(|row| row["subject"] == "anatomy").unwrap();
    for sample in samples {
        let question = first["question"].as_str().unwrap().trim();
        assert!(sample.contexts[0].contains(question), "{}", sample.contexts[0]);
        assert_eq!(sample.contexts[0].matches("Answer:").count(), 2);
    }
}
