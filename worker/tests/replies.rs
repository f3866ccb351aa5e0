//! `evaluate` where the model writes, where whole texts are scored, and beside a reference: on a random model, against one
//! prompt or one window at a time.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod greedy;
mod tiny_checkpoint;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use fs_err as fs;
use greedy::greedy;
use qpipe_nodes::protocol::{Action, Device, Event, Failure, Input};
use qpipe_nodes::results::{Evaluation, Figure, Sample, TaskResult};
use qpipe_worker::actions::ACTIONS;
use qpipe_worker::context::{Context, Events};
use qpipe_worker::error::ActionError;
use qpipe_worker::eval::sequences::{Sequence, Sequences};
use qpipe_worker::eval::{engine, oracle};
use qpipe_worker::model::Products;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny_checkpoint::{CONTEXT, random_weight};

/// Keeps nothing, and asks the action to stop after so many events that say how far it is.
struct Stopper {
    progress: Mutex<usize>,
    stop: AtomicBool,
    after: usize,
}

impl Events for Stopper {
    fn send(&self, event: &Event) {
        let mut progress = self.progress.lock().unwrap();
        *progress += usize::from(matches!(event, Event::Progress { .. }));
        if *progress >= self.after {
            self.stop.store(true, Ordering::SeqCst);
        }
    }
}

/// A model, its data and a folder for scratch folders.
struct Bed {
    folder: TempDir,
}

impl Bed {
    /// With `rows` of data.
    fn new(rows: &[Value]) -> Self {
        let bed = Self { folder: tempfile::tempdir().unwrap() };
        tiny_checkpoint::write(&bed.path("model"), random_weight);
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        fs::write(bed.path("rows.jsonl"), lines.join("\n")).unwrap();
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(
        &self,
        params: Value,
        scratch: &str,
        after: usize,
        more: &[(&str, &Path)],
    ) -> Result<(), ActionError> {
        let stopper = Stopper { progress: Mutex::new(0), stop: AtomicBool::new(false), after };
        let (model, data) = (self.path("model"), self.path("rows.jsonl"));
        let inputs = [("model", model.as_path()), ("data", &data)];
        let action = Action {
            id: 1,
            kind: "evaluate".to_owned(),
            params,
            inputs: inputs
                .iter()
                .chain(more)
                .map(|&(port, path)| (port.to_owned(), Input::One(path.to_owned())))
                .collect(),
            scratch: self.path(scratch),
            device: Device::Cpu,
            threads: 2,
            max_memory: None,
        };
        let (_, run) = ACTIONS.iter().find(|(name, _)| *name == "evaluate").unwrap();
        run(&Context::new(&action, &stopper, &stopper.stop)).map(|_| ())
    }

    fn samples(&self, scratch: &str, task: &str) -> Vec<Sample> {
        let text = fs::read_to_string(self.path(scratch).join(format!("out/{task}.jsonl"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn result(&self, scratch: &str, task: &str) -> TaskResult {
        let text = fs::read_to_string(self.path(scratch).join("out/evaluation.json")).unwrap();
        serde_json::from_str::<Evaluation>(&text).unwrap().tasks.remove(task).unwrap()
    }
}

fn sums(count: usize) -> Vec<Value> {
    let row =
        |index: usize| json!({"question": "1 + ".repeat(index % 7 + 1), "answer": format!("#### {index}")});
    (0..count).map(row).collect()
}

#[test]
fn a_model_that_computes_nan_fails_and_names_the_row() {
    let bed = Bed::new(&sums(3));
    tiny_checkpoint::write(&bed.path("model"), |_| f32::NAN);
    let params = json!({"tasks": ["gsm8k"], "num_fewshot": 0});
    let Err(ActionError::Failed { class, message, .. }) = bed.run(params, "nan", usize::MAX, &[]) else {
        panic!("the model is broken");
    };
    assert_eq!(class, Failure::Deterministic);
    // The longest prompt stands first.
    let expected = "rows.jsonl:3: the scores of token 0 of the reply are not finite numbers";
    assert!(message.ends_with(expected), "{message}");
}

#[test]
fn replies_written_together_are_those_of_each_prompt_alone() {
    let bed = Bed::new(&sums(9));
    bed.run(json!({"tasks": ["gsm8k"], "num_fewshot": 0}), "whole", usize::MAX, &[]).unwrap();
    let (checkpoint, tokenizer) = engine::open(&bed.path("model")).unwrap();
    let decoder = engine::load(&checkpoint, tch::Device::Cpu, None, Products::LIBTORCH).unwrap();
    let samples = bed.samples("whole", "gsm8k");
    assert_eq!(samples.len(), 9);
    for sample in &samples {
        let prompt = &sample.contexts[0];
        assert!(prompt.starts_with("Question: 1 + ") && prompt.ends_with("\nAnswer:"), "{prompt}");
        let ids: Vec<i64> = tokenizer.encode(prompt, false).unwrap().into_iter().map(i64::from).collect();
        let tokens = greedy(&decoder, &ids, 256, &checkpoint.config.eos);
        let tokens: Vec<u32> = tokens.into_iter().map(|token| u32::try_from(token).unwrap()).collect();
        let text = tokenizer.decode(&tokens, true).unwrap();
        let expected = text.split("Question:").next().unwrap();
        assert_eq!(sample.reply.as_ref().unwrap().text, expected);
        let filters: Vec<&str> = sample.filtered.iter().map(|filtered| filtered.filter.as_str()).collect();
        assert_eq!(filters, ["strict-match", "flexible-extract"]);
    }
    let metrics = bed.result("whole", "gsm8k").harness.unwrap().metrics;
    let names: Vec<(&str, &str)> =
        metrics.iter().map(|metric| (metric.name.as_str(), metric.filter.as_str())).collect();
    assert_eq!(names, [("exact_match", "flexible-extract"), ("exact_match", "strict-match")]);
}

#[test]
fn replies_that_were_written_before_an_interruption_are_kept() {
    let bed = Bed::new(&sums(70));
    let params = json!({"tasks": ["gsm8k"], "num_fewshot": 0});
    bed.run(params.clone(), "whole", usize::MAX, &[]).unwrap();
    assert!(matches!(bed.run(params.clone(), "halves", 1, &[]), Err(ActionError::Stopped)));
    bed.run(params, "halves", usize::MAX, &[]).unwrap();
    assert_eq!(bed.samples("halves", "gsm8k"), bed.samples("whole", "gsm8k"));
}

#[test]
fn a_long_text_is_scored_window_by_window() {
    let page = " = A page = \n".to_owned() + &"Words of it .\n".repeat(100);
    let bed = Bed::new(&[json!({"page": page}), json!({"page": ""})]);
    bed.run(json!({"tasks": ["wikitext"], "bos": "never"}), "whole", usize::MAX, &[]).unwrap();
    let samples = bed.samples("whole", "wikitext");
    let (checkpoint, tokenizer) = engine::open(&bed.path("model")).unwrap();
    let decoder = engine::load(&checkpoint, tch::Device::Cpu, None, Products::LIBTORCH).unwrap();
    let text = &samples[0].continuations[0];
    let ids: Vec<i64> = tokenizer.encode(text, false).unwrap().into_iter().map(i64::from).collect();
    assert!(ids.len() > 2 * CONTEXT && samples[0].scores.len() == 3);
    // The last window begins further back, so that it is full.
    let first: Vec<i64> =
        std::iter::once(checkpoint.config.eos[0]).chain(ids[..CONTEXT].iter().copied()).collect();
    let windows = [
        Sequence { ids: first, context: 1 },
        Sequence { ids: ids[CONTEXT - 1..2 * CONTEXT].to_vec(), context: 1 },
        Sequence { ids: ids[ids.len() - CONTEXT - 1..].to_vec(), context: 3 * CONTEXT + 1 - ids.len() },
    ];
    let expected = oracle::score(&decoder, &Sequences(windows.to_vec())).unwrap();
    for (found, expected) in samples[0].scores.iter().zip(&expected) {
        assert!((found - expected.log_probability).abs() < 1e-2, "{found} {}", expected.log_probability);
    }
    assert!(samples[1].scores.is_empty() && samples[1].correct.is_none());
    let sum: f64 = samples[0].scores.iter().sum();
    let bytes = page.len() as f64;
    assert_eq!(samples[0].filtered[0].metrics["byte_perplexity"], Figure::Share([sum, bytes]));
    let result = bed.result("whole", "wikitext");
    assert_eq!((result.correct, result.accuracy), (None, None));
    let metrics = result.harness.unwrap().metrics;
    let bits = metrics.iter().find(|metric| metric.name == "bits_per_byte").unwrap();
    assert!((bits.value + sum / bytes / std::f64::consts::LN_2).abs() < 1e-12 && bits.stderr.is_none());
}

#[test]
fn a_reference_is_compared_wherever_a_prediction_is_scored() {
    let rows = sums(5).into_iter().map(|row| json!({"page": row["question"]})).collect::<Vec<_>>();
    let bed = Bed::new(&rows);
    let (same, other) = (bed.path("model"), bed.path("other"));
    tiny_checkpoint::write(&other, |number| random_weight(number + 1));
    let params = json!({"tasks": ["wikitext"]});
    bed.run(params.clone(), "same", usize::MAX, &[("reference", &same)]).unwrap();
    bed.run(params.clone(), "other", usize::MAX, &[("reference", &other)]).unwrap();
    bed.run(params, "alone", usize::MAX, &[]).unwrap();
    let divergence = |name: &str| bed.result(name, "wikitext").divergence;
    let (same, other) = (divergence("same").unwrap(), divergence("other").unwrap());
    // Every token but a repeated prefix is predicted once; here texts begin alike, and what they share is compared once.
    assert!(same.tokens > 0 && same.tokens == other.tokens);
    assert!(same.kl.abs() < 1e-5 && same.agreed == same.tokens, "{same:?}");
    assert!(other.mean() > 1e-3 && other.agreed < other.tokens, "{other:?}");
    assert_eq!(divergence("alone"), None);
    assert_eq!(bed.samples("same", "wikitext"), bed.samples("alone", "wikitext"));
}

/// The reply that comes most often, the first of equals.
fn majority(replies: &[String]) -> &str {
    let votes = |reply: &String| replies.iter().filter(|other| *other == reply).count();
    // The last of the highest is taken.
    replies.iter().rev().max_by_key(|reply| votes(reply)).unwrap()
}

#[test]
fn a_question_has_several_replies() {
    let bed = Bed::new(&sums(5));
    let task = |name: &str, generation: Value| {
        json!({
            "task": name, "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}", "repeats": 3,
            "generation_kwargs": generation, "metric_list": [{"metric": "exact_match"}, {"metric": "chrf"}],
            "filter_list": [
                {"name": "voted", "filter": [{"function": "majority_vote"}, {"function": "take_first"}]},
                {"name": "last", "filter": [
                    {"function": "take_first_k", "k": 3}, {"function": "majority_vote"}, {"function": "take_first"},
                ]},
            ],
        })
    };
    let params = |seed: u64| {
        let drawn =
            task("drawn", json!({"do_sample": true, "temperature": 1.0, "max_gen_toks": 8, "until": []}));
        let same = task("same", json!({"do_sample": false, "max_gen_toks": 8, "until": []}));
        let mut seen = drawn.clone();
        seen["task"] = json!("seen");
        seen["metric_list"] = json!([{"metric": "exact_match"}]);
        seen["filter_list"] = json!([{"name": "two", "filter": [{"function": "take_first_k", "k": 2}]}]);
        let files = json!({"drawn": drawn, "same": same, "seen": seen});
        json!({"tasks": ["drawn", "same", "seen"], "task_files": files, "seed": seed})
    };
    for (scratch, seed) in [("one", 7), ("again", 7), ("other", 8)] {
        bed.run(params(seed), scratch, usize::MAX, &[]).unwrap();
    }
    let replies = |scratch: &str, task: &str| -> Vec<Vec<String>> {
        let reply = |sample: &Sample| {
            let reply = sample.reply.as_ref().unwrap();
            [std::slice::from_ref(&reply.text), reply.more.as_slice()].concat()
        };
        bed.samples(scratch, task).iter().map(reply).collect()
    };
    let drawn = replies("one", "drawn");
    assert_eq!((drawn.len(), drawn[0].len()), (5, 3));
    assert!(drawn.iter().any(|replies| replies[0] != replies[1] && replies[1] != replies[2]), "{drawn:?}");
    // The filters saw what was drawn.
    for (sample, replies) in bed.samples("one", "drawn").iter().zip(&drawn) {
        let voted = Some(Value::from(majority(replies)));
        let left: Vec<&Option<Value>> = sample.filtered.iter().map(|filtered| &filtered.reply).collect();
        assert_eq!(left, [&voted, &voted]);
    }
    let seen = replies("one", "seen");
    assert!(seen.iter().any(|replies| replies[0] != replies[1]), "{seen:?}");
    for (sample, replies) in bed.samples("one", "seen").iter().zip(&seen) {
        assert_eq!(sample.filtered[0].reply, Some(json!(replies[..2])));
    }
    assert_eq!(replies("again", "drawn"), drawn);
    assert_ne!(replies("other", "drawn"), drawn);
    let same = replies("one", "same");
    assert!(
        same.iter().all(|replies| replies.len() == 3 && replies.iter().all(|reply| *reply == replies[0]))
    );
    let result = bed.result("one", "drawn");
    assert_eq!((result.n, result.harness.unwrap().metrics.len()), (5, 4));
}
