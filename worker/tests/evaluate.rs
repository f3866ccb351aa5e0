//! `evaluate` and `benchmark` on a random model: the same scores however questions are batched, interrupted or
//! run one by one, and errors that name the question.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod tiny_checkpoint;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use fs_err as fs;
use qpipe_nodes::kinds::Candidates;
use qpipe_nodes::protocol::{Action, Device, Event, Failure, Input};
use qpipe_nodes::results::{Answer, BenchmarkResult, Evaluation};
use qpipe_worker::actions::ACTIONS;
use qpipe_worker::context::{Context, Events};
use qpipe_worker::error::ActionError;
use qpipe_worker::eval::rows::Data;
use qpipe_worker::eval::sequences::Encoder;
use qpipe_worker::eval::task::{Task, TaskOptions};
use qpipe_worker::eval::{engine, mcqa, oracle};
use qpipe_worker::model::Products;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny_checkpoint::{CONTEXT, VOCABULARY, random_weight};

/// How far float32 scores may lie apart for the order of the additions alone.
const ROUNDING: f64 = 1e-4;

/// Keeps events, and asks the action to stop after so many of them that say how far it is.
struct Recorder {
    events: Mutex<Vec<Event>>,
    stop: AtomicBool,
    stop_after: usize,
}

impl Recorder {
    fn new(stop_after: usize) -> Self {
        Self { events: Mutex::default(), stop: AtomicBool::new(false), stop_after }
    }
}

impl Events for Recorder {
    fn send(&self, event: &Event) {
        let mut events = self.events.lock().unwrap();
        events.push(event.clone());
        let progress = events.iter().filter(|event| matches!(event, Event::Progress { .. })).count();
        if progress >= self.stop_after {
            self.stop.store(true, Ordering::SeqCst);
        }
    }
}

/// A model, questions and a folder for scratch folders.
struct Bed {
    folder: TempDir,
}

impl Bed {
    fn new(questions: usize) -> Self {
        let bed = Self { folder: tempfile::tempdir().unwrap() };
        tiny_checkpoint::write(&bed.model(), random_weight);
        tiny_checkpoint::write_questions(&bed.data(), questions);
        bed
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("questions.jsonl")
    }

    fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, kind: &str, params: Value, scratch: &str, recorder: &Recorder) -> Result<(), ActionError> {
        let action = Action {
            id: 1,
            kind: kind.to_owned(),
            params,
            inputs: [("model", self.model()), ("data", self.data())]
                .map(|(port, path)| (port.to_owned(), Input::One(path)))
                .into(),
            scratch: self.scratch(scratch),
            device: Device::Cpu,
            threads: 2,
            max_memory: None,
        };
        let (_, run) = ACTIONS.iter().find(|(name, _)| *name == kind).unwrap();
        run(&Context::new(&action, recorder, &recorder.stop)).map(|_| ())
    }

    fn evaluate(&self, params: Value, scratch: &str) -> Vec<Answer> {
        self.run("evaluate", params, scratch, &Recorder::new(usize::MAX)).unwrap();
        answers(&self.scratch(scratch))
    }

    fn failure(&self, params: Value) -> (Failure, String) {
        let result = self.run("evaluate", params, "failed", &Recorder::new(usize::MAX));
        match result.unwrap_err() {
            ActionError::Failed { class, message, .. } => (class, message),
            ActionError::Stopped => panic!("nothing asked to stop"),
        }
    }
}

fn answers(scratch: &Path) -> Vec<Answer> {
    let text = fs::read_to_string(scratch.join("out/mcqa.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn furthest(one: &[Answer], other: &[Answer]) -> f64 {
    assert_eq!(one.len(), other.len());
    let scores =
        |answers: &[Answer]| answers.iter().flat_map(|answer| answer.scores.clone()).collect::<Vec<_>>();
    scores(one).iter().zip(scores(other)).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
}

#[test]
fn the_shared_prompt_gives_the_scores_of_one_pass_a_candidate() {
    let bed = Bed::new(20);
    for (name, candidates) in [("letters", Candidates::Letters), ("text", Candidates::Text)] {
        let found = bed.evaluate(json!({"topic": "fruit", "candidates": name, "batch_tokens": 600}), name);
        let options = TaskOptions { topic: "fruit", candidates, ..TaskOptions::default() };
        let documents = mcqa::Mcqa.questions(&Data::open(&bed.data()).unwrap(), &options).unwrap().documents;
        let (checkpoint, tokenizer) = engine::open(&bed.model()).unwrap();
        let encoder = Encoder::new(&tokenizer, mcqa::Mcqa.rules(), None, CONTEXT as i64).unwrap();
        let decoder = engine::load(&checkpoint, tch::Device::Cpu, None, Products::LIBTORCH).unwrap();
        for (answer, document) in found.iter().zip(&documents) {
            let expected = oracle::score(&decoder, &encoder.encode(document).unwrap()).unwrap();
            for (found, expected) in answer.scores.iter().zip(expected) {
                let expected = expected.log_probability;
                assert!((found - expected).abs() < ROUNDING, "{name}: {found} instead of {expected}");
            }
            assert_eq!(answer.correct, [answer.pred] == *document.gold);
        }
    }
}

#[test]
fn batches_change_scores_by_rounding_alone() {
    let bed = Bed::new(24);
    for candidates in ["letters", "text"] {
        let evaluate = |batch_tokens: u32| {
            let params = json!({"topic": "fruit", "candidates": candidates, "batch_tokens": batch_tokens});
            bed.evaluate(params, &format!("{candidates}{batch_tokens}"))
        };
        let alone = evaluate(1);
        assert!(furthest(&alone, &evaluate(1000)) < ROUNDING);
        assert!(furthest(&alone, &evaluate(100_000)) < ROUNDING);
    }
}

#[test]
fn outliers_of_llm_int8_are_those_of_a_sequence() {
    let bed = Bed::new(12);
    // With a low threshold every channel that is one anywhere in a batch counts.
    let params = json!({"method": "bnb-int8", "threshold": 0.5});
    bed.run("quantize", params, "int8", &Recorder::new(usize::MAX)).unwrap();
    fs::remove_dir_all(bed.model()).unwrap();
    fs::rename(bed.scratch("int8/out"), bed.model()).unwrap();
    let evaluate = |batch_tokens: u32| {
        let params = json!({"topic": "fruit", "candidates": "text", "batch_tokens": batch_tokens});
        bed.evaluate(params, &format!("text{batch_tokens}"))
    };
    let alone = evaluate(1);
    assert!(furthest(&alone, &evaluate(100_000)) < ROUNDING);

    let options = TaskOptions { topic: "fruit", candidates: Candidates::Text, ..TaskOptions::default() };
    let documents = mcqa::Mcqa.questions(&Data::open(&bed.data()).unwrap(), &options).unwrap().documents;
    let (checkpoint, tokenizer) = engine::open(&bed.model()).unwrap();
    let encoder = Encoder::new(&tokenizer, mcqa::Mcqa.rules(), None, CONTEXT as i64).unwrap();
    let decoder = engine::load(&checkpoint, tch::Device::Cpu, None, Products::LIBTORCH).unwrap();
    for (answer, document) in alone.iter().zip(&documents) {
        let expected = oracle::score(&decoder, &encoder.encode(document).unwrap()).unwrap();
        for (found, expected) in answer.scores.iter().zip(expected) {
            assert!((found - expected.log_probability).abs() < ROUNDING);
        }
    }
}

#[test]
fn what_was_interrupted_is_resumed_bit_for_bit() {
    let bed = Bed::new(24);
    let params = json!({"topic": "fruit", "candidates": "text", "batch_tokens": 60});
    bed.evaluate(params.clone(), "whole");

    let recorder = Recorder::new(2);
    let stopped = bed.run("evaluate", params.clone(), "resumed", &recorder);
    assert!(matches!(stopped, Err(ActionError::Stopped)));
    let mut units: Vec<String> = fs::read_dir(bed.scratch("resumed/units"))
        .unwrap()
        .map(|unit| unit.unwrap().file_name().into_string().unwrap())
        .collect();
    units.sort();
    assert_eq!(units.len(), 2, "what was answered until then is one unit: {units:?}");
    assert!(units[0].starts_with("mcqa-") && units[1] == "memory");
    assert!(recorder.events.lock().unwrap().iter().any(|event| matches!(event, Event::Unit { .. })));

    let again = Recorder::new(usize::MAX);
    bed.run("evaluate", params, "resumed", &again).unwrap();
    let says = |event: &Event| matches!(event, Event::Log { message, .. } if message.starts_with("mcqa: goes on after "));
    assert!(again.events.lock().unwrap().iter().any(says), "how much was answered before is said");
    for file in ["out/mcqa.jsonl", "out/evaluation.json"] {
        let read = |scratch: &str| fs::read(bed.scratch(scratch).join(file)).unwrap();
        assert_eq!(read("whole"), read("resumed"), "{file}");
    }
}

#[test]
fn tasks_in_one_queue_are_resumed_bit_for_bit_and_score_as_alone() {
    let bed = Bed::new(24);
    let tasks = ["mmlu_anatomy", "mcqa", "mmlu_virology"];
    let params =
        |tasks: &[&str]| json!({"tasks": tasks, "topic": "fruit", "candidates": "text", "batch_tokens": 400});
    let quiet = Recorder::new(usize::MAX);
    bed.run("evaluate", params(&tasks), "whole", &quiet).unwrap();

    // Each time a little further.
    for patience in [3, 5, 7] {
        let stopped = bed.run("evaluate", params(&tasks), "resumed", &Recorder::new(patience));
        assert!(matches!(stopped, Err(ActionError::Stopped)));
    }
    assert!(fs::read_dir(bed.scratch("resumed/units")).unwrap().count() > 3);
    bed.run("evaluate", params(&tasks), "resumed", &quiet).unwrap();
    for file in
        tasks.map(|task| format!("out/{task}.jsonl")).iter().chain([&"out/evaluation.json".to_owned()])
    {
        let read = |scratch: &str| fs::read_to_string(bed.scratch(scratch).join(file)).unwrap();
        assert_eq!(read("whole"), read("resumed"), "{file}");
    }

    bed.run("evaluate", params(&tasks[2..]), "alone", &quiet).unwrap();
    let scores = |scratch: &str| -> Vec<f64> {
        let text = fs::read_to_string(bed.scratch(scratch).join("out/mmlu_virology.jsonl")).unwrap();
        let samples = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        samples
            .flat_map(|sample| serde_json::from_value::<Vec<f64>>(sample["scores"].clone()).unwrap())
            .collect()
    };
    assert_eq!(scores("alone").len(), 4 * 24);
    assert!(scores("alone").iter().zip(scores("whole")).all(|(one, other)| (one - other).abs() < ROUNDING));
}

#[test]
fn a_damaged_unit_is_computed_again() {
    let bed = Bed::new(8);
    let params = json!({"topic": "fruit", "batch_tokens": 400});
    let whole = bed.evaluate(params.clone(), "whole");
    let units = bed.scratch("damaged/units");
    fs::create_dir_all(&units).unwrap();
    fs::write(units.join("mcqa-000000.jsonl"), "{\"doc_id\": 0, \"scores\": [").unwrap();
    fs::write(
        units.join("mcqa-000001.jsonl"),
        "{\"doc_id\": 99, \"scores\": [0, 0, 0, 0], \"greedy\": []}\n",
    )
    .unwrap();
    assert_eq!(bed.evaluate(params, "damaged"), whole);
}

#[test]
fn the_summary_counts_what_was_done() {
    let bed = Bed::new(9);
    let answers = bed.evaluate(json!({"topic": "fruit", "limit": 5}), "limited");
    assert_eq!(answers.iter().map(|answer| answer.doc_id).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let text = fs::read_to_string(bed.scratch("limited/out/evaluation.json")).unwrap();
    let evaluation: Evaluation = serde_json::from_str(&text).unwrap();
    let task = &evaluation.tasks["mcqa"];
    assert_eq!(task.n, 5);
    let correct = answers.iter().filter(|answer| answer.correct).count() as u64;
    assert_eq!((task.correct, task.accuracy), (Some(correct), Some(correct as f64 / 5.0)));
    assert_eq!((evaluation.dtype.as_str(), evaluation.device.as_str()), ("float32", "cpu"));
    assert_eq!(evaluation.scheme, "dense");
}

#[test]
fn a_prompt_longer_than_the_context_is_named_with_both_numbers() {
    let bed = Bed::new(3);
    let row = json!({"question": "x".repeat(600), "choices": ["a", "b", "c", "d"], "answer": 0});
    fs::write(bed.data(), format!("{}{row}\n", fs::read_to_string(bed.data()).unwrap())).unwrap();
    let (class, message) = bed.failure(json!({"topic": "fruit"}));
    assert_eq!(class, Failure::User);
    assert!(message.contains("questions.jsonl:4: the prompt has "), "{message}");
    assert!(message.contains("the model's context has 512"), "{message}");
}

#[test]
fn a_model_that_computes_nan_fails_and_names_the_question() {
    let bed = Bed::new(3);
    tiny_checkpoint::write(&bed.model(), |_| f32::NAN);
    let (class, message) = bed.failure(json!({"topic": "fruit"}));
    assert_eq!(class, Failure::Deterministic);
    assert!(message.contains("questions.jsonl:"), "{message}");
    assert!(message.ends_with("the score of candidate 0 is NaN"), "{message}");
}

#[test]
fn a_beginning_that_the_tokenizer_does_not_have_is_an_error() {
    let bed = Bed::new(3);
    let (class, message) = bed.failure(json!({"topic": "fruit", "bos": "always"}));
    assert_eq!(class, Failure::User);
    assert!(message.contains("beginning-of-sequence"), "{message}");
    let never = bed.evaluate(json!({"topic": "fruit"}), "never");
    assert_eq!(bed.evaluate(json!({"topic": "fruit", "bos": "tokenizer"}), "tokenizer"), never);
}

#[test]
fn the_benchmark_measures_weights_and_logits() {
    let bed = Bed::new(8);
    for protocol in ["sequential", "batched"] {
        let params = json!({"topic": "fruit", "questions": 6, "protocol": protocol});
        bed.run("benchmark", params, protocol, &Recorder::new(usize::MAX)).unwrap();
        let text = fs::read_to_string(bed.scratch(protocol).join("out/benchmark.json")).unwrap();
        let result: BenchmarkResult = serde_json::from_str(&text).unwrap();
        assert_eq!(result.questions, 6);
        assert!(result.avg_time_s > 0.0 && result.tokens_per_s > 0.0);
        assert!(result.time_p10_s <= result.time_p50_s && result.time_p50_s <= result.time_p90_s);
        let peak = result.avg_peak_vram_mb * f64::from(1 << 20);
        let weights = result.weight_bytes as f64;
        // The shortest prompt has more than 100 tokens.
        let logits = if protocol == "sequential" { 100 * VOCABULARY * 4 } else { VOCABULARY * 4 };
        assert!(peak > weights + logits as f64, "{protocol}: {peak} for weights of {weights}");
        assert!(peak < weights + 8e6, "{protocol}: {peak} for weights of {weights}");
    }
}
