//! `calibrate` against a plain computation, and against itself: in parts, in another mode, killed and resumed.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod tiny_checkpoint;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use fs_err as fs;
use qpipe_nodes::protocol::{Action, Device, Event, Failure, Input};
use qpipe_worker::calibrate::{self, Statistics, Way};
use qpipe_worker::context::{Context, Events, Facts};
use qpipe_worker::error::ActionError;
use qpipe_worker::model::block::INPUTS;
use qpipe_worker::model::norm::RmsNorm;
use qpipe_worker::model::{Attention, BlockRunner, Checkpoint, Decoder, LoadOptions};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

/// Keeps events, and sets `stop` at the first progress event after `patience` others.
struct Recorder {
    events: Mutex<Vec<Event>>,
    patience: usize,
    stop: AtomicBool,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::stopping_after(usize::MAX)
    }
}

impl Recorder {
    fn stopping_after(patience: usize) -> Self {
        Self { events: Mutex::default(), patience, stop: AtomicBool::new(false) }
    }

    fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| matches(event)).count()
    }

    fn logs(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let texts = events.iter().filter_map(|event| match event {
            Event::Log { message, .. } => Some(message.clone()),
            _ => None,
        });
        texts.collect()
    }
}

impl Events for Recorder {
    fn send(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
        if self.count(|event| matches!(event, Event::Progress { .. })) > self.patience {
            self.stop.store(true, Ordering::SeqCst);
        }
    }
}

/// A model, rows, and folders for attempts at calibrating.
struct Bench {
    folder: TempDir,
}

impl Bench {
    /// 60 rows of 20 to 120 tokens (the tokenizer makes one of every byte), three of them empty.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny_checkpoint::write(&folder.path().join("model"), tiny_checkpoint::random_weight);
        let rows: Vec<Value> = (0..63)
            .map(|i| if i % 21 == 4 { json!({"text": ""}) } else { json!({"text": text(i)}) })
            .collect();
        let bench = Self { folder };
        bench.write_rows(&rows);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_rows(&self, rows: &[Value]) {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(self.path("rows.jsonl"), text).unwrap();
    }

    /// One attempt in the scratch folder `scratch`, optionally going on from another one's result.
    fn attempt(
        &self,
        scratch: &str,
        params: Value,
        previous: Option<&str>,
        recorder: &Recorder,
    ) -> Result<Facts, ActionError> {
        self.attempt_as(None, scratch, params, previous, recorder)
    }

    fn attempt_limited(
        &self,
        scratch: &str,
        params: Value,
        max_memory: Option<u64>,
        recorder: &Recorder,
    ) -> Result<Facts, ActionError> {
        let action = Action { max_memory, ..self.action(scratch, params, None) };
        calibrate::run(&Context::new(&action, recorder, &recorder.stop))
    }

    fn attempt_as(
        &self,
        way: Option<Way>,
        scratch: &str,
        params: Value,
        previous: Option<&str>,
        recorder: &Recorder,
    ) -> Result<Facts, ActionError> {
        let action = self.action(scratch, params, previous);
        calibrate::run_as(&Context::new(&action, recorder, &recorder.stop), way)
    }

    fn action(&self, scratch: &str, params: Value, previous: Option<&str>) -> Action {
        let mut inputs = vec![
            ("model".to_owned(), Input::One(self.path("model"))),
            ("data".to_owned(), Input::One(self.path("rows.jsonl"))),
        ];
        inputs.extend(previous.map(|name| ("previous".to_owned(), Input::One(self.path(name).join("out")))));
        let mut all = json!({"max_length": 2048, "seed": 0, "statistics": "moments"});
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        Action {
            id: 1,
            kind: "calibrate".to_owned(),
            params: all,
            inputs: inputs.into_iter().collect(),
            scratch: self.path(scratch),
            device: Device::Cpu,
            threads: 1,
            max_memory: None,
        }
    }

    fn run(&self, scratch: &str, params: Value) -> (Facts, Statistics) {
        let facts = self.attempt(scratch, params, None, &Recorder::default()).unwrap();
        (facts, self.open(scratch))
    }

    fn open(&self, scratch: &str) -> Statistics {
        Statistics::open(&self.path(scratch).join("out")).unwrap()
    }

    /// Every file of a result.
    fn bytes(&self, scratch: &str) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(self.path(scratch).join("out"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
            .collect();
        files.sort();
        files
    }
}

/// 20 to 120 letters that differ from row to row.
fn text(number: u64) -> String {
    let length = 20 + number * 37 % 101;
    (0..length).map(|i| char::from(b'a' + ((number + 1) * (i + 3) * 7919 % 26) as u8)).collect()
}

/// The inputs of every linear layer over all tokens of `sequences`, [tokens, K], in f64: one sample at a time,
/// through a model in f64.
fn plain_inputs(model: &Path, sequences: &[Vec<i64>]) -> Vec<(String, Tensor)> {
    let checkpoint = Checkpoint::open(model).unwrap();
    let options = LoadOptions::inference(tch::Device::Cpu, Some(Kind::Double));
    let runner = BlockRunner::new(&checkpoint, options).unwrap();
    let mut seen: Vec<(String, Vec<Tensor>)> = Vec::new();
    for ids in sequences {
        let ids = Tensor::from_slice(ids).unsqueeze(0);
        let positions = Tensor::arange(ids.size()[1], (Kind::Int64, tch::Device::Cpu)).unsqueeze(0);
        let frame = runner.frame(&positions, &Attention::Causal);
        let mut hidden = runner.embed(&ids).unwrap();
        for index in 0..runner.blocks() {
            let block = runner.load_block(index).unwrap();
            hidden = runner.forward(&block, hidden, &frame, &mut |part, input| {
                let name = format!("model.layers.{index}.{part}");
                let input = input.squeeze_dim(0).copy();
                match seen.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, inputs)) => inputs.push(input),
                    None => seen.push((name, vec![input])),
                }
            });
        }
    }
    seen.into_iter().map(|(name, inputs)| (name, Tensor::cat(&inputs, 0))).collect()
}

/// The largest difference of two tensors as a share of the second's largest entry.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    f64::try_from((&a - &b).abs().max() / b.abs().max()).unwrap()
}

fn failure(error: ActionError) -> (Failure, String, Option<String>) {
    match error {
        ActionError::Failed { class, message, help } => (class, message, help),
        ActionError::Stopped => panic!("the action was stopped"),
    }
}

#[test]
fn every_figure_is_that_of_a_plain_computation() {
    let _guard = tch::no_grad_guard();
    let bench = Bench::new();
    let (facts, statistics) = bench.run("a", json!({"samples": 27}));
    let sequences = statistics.sequences().unwrap();
    let tokens: usize = sequences.iter().map(Vec::len).sum();
    assert_eq!((statistics.samples(), sequences.len()), (27, 27));
    assert_eq!((facts["samples"].as_u64(), facts["tokens"].as_u64()), (Some(27), Some(tokens as u64)));
    let inputs = plain_inputs(&bench.path("model"), &sequences);
    assert_eq!(inputs.len(), 2 * INPUTS.len());
    for (name, x) in &inputs {
        let (block, part) = name.split_at("model.layers.0.".len());
        let input = INPUTS.iter().find(|input| input.first.name() == part).unwrap();
        for linear in input.parts {
            let linear = format!("{block}{linear}");
            assert_eq!(statistics.tokens(&linear).unwrap(), tokens as u64);
            let ranges = statistics.ranges(&linear).unwrap();
            for (found, expected) in [
                (&ranges.min, x.amin([0].as_slice(), false)),
                (&ranges.max, x.amax([0].as_slice(), false)),
                (&ranges.absmax, x.abs().amax([0].as_slice(), false)),
                (&ranges.mean_magnitude, x.abs().mean_dim([0].as_slice(), false, Kind::Double)),
            ] {
                assert_eq!(found.kind(), Kind::Float);
                assert!(distance(found, &expected) < 1e-5, "{linear}: {}", distance(found, &expected));
            }
            let moments = statistics.moments(&linear).unwrap();
            assert!(moments.equal(&moments.tr()));
            assert!(distance(&moments, &x.tr().matmul(x)) < 1e-5, "{linear}");
        }
    }
}

#[test]
fn a_block_runner_is_the_decoder() {
    let _guard = tch::no_grad_guard();
    let bench = Bench::new();
    let checkpoint = Checkpoint::open(&bench.path("model")).unwrap();
    let options = LoadOptions::inference(tch::Device::Cpu, None);
    let ids = Tensor::from_slice(&[5i64, 7, 9, 11, 2, 3]).view([2, 3]);
    let positions = Tensor::arange(3, (Kind::Int64, tch::Device::Cpu)).unsqueeze(0).repeat([2, 1]);
    let runner = BlockRunner::new(&checkpoint, options).unwrap();
    let frame = runner.frame(&positions, &Attention::Causal);
    let mut hidden = runner.embed(&ids).unwrap();
    for index in 0..runner.blocks() {
        let block = runner.load_block(index).unwrap();
        hidden = runner.forward(&block, hidden, &frame, &mut |_, _| {});
    }
    let decoder = Decoder::load(&checkpoint, &options).unwrap();
    let expected = decoder.hidden(&ids, &positions, &Attention::Causal, None);
    let size = checkpoint.config.hidden_size;
    let norm = RmsNorm::load(&checkpoint, "model.norm", size, &options).unwrap();
    assert!(norm.forward(&hidden).equal(&expected));
}

#[test]
fn fewer_samples_are_the_first_of_more() {
    let bench = Bench::new();
    let samples = |scratch: &str, count: u32, seed: u64| {
        let params = json!({"samples": count, "seed": seed, "statistics": "samples"});
        bench.run(scratch, params).1.sequences().unwrap()
    };
    let all = samples("all", 60, 0);
    assert_eq!(samples("few", 20, 0), all[..20]);
    assert_ne!(samples("other", 20, 1), all[..20]);
    let mut lengths: Vec<usize> = all.iter().map(Vec::len).collect();
    lengths.sort_unstable();
    assert!(lengths[0] >= 20 && lengths[59] <= 120, "empty rows are no samples");
    assert!(!bench.path("all/out/block-00000.safetensors").exists(), "token ids only");
}

#[test]
fn a_larger_calibration_goes_on_from_a_smaller_one_to_the_bit() {
    let bench = Bench::new();
    for statistics in ["ranges", "moments"] {
        let params = |count: u32| json!({"samples": count, "statistics": statistics});
        let name = |what: &str| format!("{what}-{statistics}");
        bench.run(&name("20"), params(20));
        bench.run(&name("57"), params(57));
        let resumed = name("resumed");
        bench.attempt(&resumed, params(57), Some(&name("20")), &Recorder::default()).unwrap();
        assert_eq!(bench.bytes(&resumed), bench.bytes(&name("57")));
    }
    // What was measured with moments serves those who want less.
    let params = json!({"samples": 57, "statistics": "ranges"});
    bench.attempt("less", params, Some("20-moments"), &Recorder::default()).unwrap();
    assert_eq!(bench.bytes("less"), bench.bytes("57-ranges"));
}

const WAYS: [Way; 3] = [Way::Resident, Way::Streamed, Way::StreamedFromDisk];

#[test]
fn every_way_gives_the_same_bytes() {
    let bench = Bench::new();
    bench.run("20", json!({"samples": 20}));
    bench.run("57", json!({"samples": 57}));
    for way in WAYS {
        let name = format!("{way:?}");
        let attempt = |scratch: &str, previous| {
            let params = json!({"samples": 57});
            bench.attempt_as(Some(way), scratch, params, previous, &Recorder::default()).unwrap();
            assert_eq!(bench.bytes(scratch), bench.bytes("57"), "{scratch}");
        };
        attempt(&name, None);
        attempt(&format!("{name} from 20"), Some("20"));
    }
}

#[test]
fn little_memory_is_made_do_with() {
    let bench = Bench::new();
    let (_, statistics) = bench.run("a", json!({"samples": 20}));
    let recorder = Recorder::default();
    bench.attempt_limited("b", json!({"samples": 20}), Some(1), &recorder).unwrap();
    assert!(
        recorder.logs().iter().any(|log| log.starts_with("hidden states are kept on disk")),
        "{:?}",
        recorder.logs()
    );
    assert_eq!(bench.bytes("a"), bench.bytes("b"));
    assert_eq!(statistics.samples(), 20);
}

/// SIGTERM after a few micro-batches, again and again: the attempt ends with a unit, the next one goes on from it.
#[test]
fn an_interrupted_calibration_goes_on_to_the_same_bytes() {
    let bench = Bench::new();
    bench.run("whole", json!({"samples": 57}));
    for way in WAYS {
        let scratch = format!("{way:?}");
        let mut attempts = 0;
        loop {
            attempts += 1;
            // Hidden states in memory are passed through the finished blocks again, so each attempt gets longer.
            let recorder = Recorder::stopping_after(2 * attempts);
            match bench.attempt_as(Some(way), &scratch, json!({"samples": 57}), None, &recorder) {
                Ok(_) => break,
                Err(ActionError::Stopped) => assert!(attempts < 40, "no progress"),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(attempts > 3, "{attempts}");
        assert_eq!(bench.bytes(&scratch), bench.bytes("whole"), "{way:?}");
    }
}

/// Killed outright: units that were published remain, and what was written meanwhile is not looked at.
#[test]
fn a_killed_calibration_goes_on_from_its_units() {
    let bench = Bench::new();
    bench.run("whole", json!({"samples": 57}));
    for way in WAYS {
        let (first, second) = (format!("{way:?} first"), format!("{way:?} second"));
        let stopped = Recorder::stopping_after(3);
        bench.attempt_as(Some(way), &first, json!({"samples": 57}), None, &stopped).unwrap_err();
        let units = bench.path(&second).join("units");
        fs::create_dir_all(&units).unwrap();
        for entry in fs::read_dir(bench.path(&first).join("units")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), units.join(entry.file_name())).unwrap();
        }
        fs::write(units.join("from-block-00000-batch-000009.safetensors.partial"), "torn").unwrap();
        let recorder = Recorder::default();
        bench.attempt_as(Some(way), &second, json!({"samples": 57}), None, &recorder).unwrap();
        assert!(
            recorder.logs().iter().any(|log| log.contains("an earlier attempt")),
            "{:?}",
            recorder.logs()
        );
        assert_eq!(bench.bytes(&second), bench.bytes("whole"), "{way:?}");
    }
}

#[test]
fn more_samples_than_rows_are_refused_with_both_numbers() {
    let bench = Bench::new();
    let error = bench.attempt("a", json!({"samples": 61}), None, &Recorder::default()).unwrap_err();
    let (class, message, help) = failure(error);
    assert_eq!(class, Failure::User);
    assert!(message.starts_with("61 samples are asked for") && message.contains("60 rows"), "{message}");
    assert_eq!(help.unwrap(), "Set `samples` to 60 or less, or add rows.");
}

#[test]
fn long_samples_are_cut_and_empty_rows_passed_over_and_both_are_said() {
    let bench = Bench::new();
    let recorder = Recorder::default();
    let params = json!({"samples": 60, "max_length": 50, "statistics": "ranges"});
    let facts = bench.attempt("a", params, None, &recorder).unwrap();
    let sequences = bench.open("a").sequences().unwrap();
    assert_eq!(sequences.iter().map(Vec::len).max(), Some(50));
    let cut = sequences.iter().filter(|ids| ids.len() == 50).count();
    let logs = recorder.logs();
    let said = facts["cut"].as_u64().unwrap();
    assert!(said > 0 && said <= cut as u64);
    assert_eq!(logs[0], format!("{said} of 60 samples were cut to 50 tokens"));
    assert!(logs[1].starts_with("3 empty rows are passed over, `"), "{}", logs[1]);
    assert!(logs[1].contains("line "), "{}", logs[1]);
    assert_eq!(facts["empty"], 3);
}

#[test]
fn one_sample_of_one_token_is_enough() {
    let bench = Bench::new();
    bench.write_rows(&[json!({"text": "a"})]);
    let recorder = Recorder::default();
    let facts = bench.attempt("a", json!({"samples": 1}), None, &recorder).unwrap();
    assert_eq!(facts["tokens"], 1);
    let statistics = bench.open("a");
    let ranges = statistics.ranges("model.layers.1.mlp.down_proj").unwrap();
    assert!(ranges.min.equal(&ranges.max));
    let moments = statistics.moments("model.layers.1.mlp.down_proj").unwrap();
    assert_eq!(moments.size(), [48, 48]);
    assert!(distance(&moments.diag(0), &ranges.absmax.square()) < 1e-6);
    let scarce: Vec<String> = recorder.logs().into_iter().filter(|log| log.contains("singular")).collect();
    assert_eq!(scarce.len(), 1, "said once");
    assert!(scarce[0].contains("1 tokens, fewer than the 48 channels"), "{scarce:?}");
}

#[test]
fn rows_of_every_shape_become_the_text_that_the_model_reads() {
    let bench = Bench::new();
    bench.write_rows(&[
        json!({"prompt": "ab", "completion": "cd"}),
        json!({"prompt": "ab", "completion": "cd"}),
        json!({"prompt": "", "completion": ""}),
    ]);
    let (_, statistics) = bench.run("a", json!({"samples": 2, "statistics": "samples"}));
    let expected: Vec<i64> = "abcd".bytes().map(i64::from).collect();
    assert_eq!(statistics.sequences().unwrap(), [expected.clone(), expected]);
    bench.write_rows(&[json!({"instruction": "Add.", "input": "1 1", "output": "2"})]);
    let (_, statistics) = bench.run("b", json!({"samples": 1, "statistics": "samples"}));
    let ids: Vec<u8> = statistics.sequences().unwrap()[0].iter().map(|id| *id as u8).collect();
    assert!(String::from_utf8(ids).unwrap().ends_with("### Input:\n1 1\n\n### Response:\n2"));
    bench.write_rows(&[json!({"messages": [{"role": "user", "content": "hi"}]})]);
    let params = json!({"samples": 1, "statistics": "samples"});
    let (class, message, _) = failure(bench.attempt("c", params, None, &Recorder::default()).unwrap_err());
    assert_eq!(class, Failure::User);
    assert!(message.contains("line 1") && message.contains("chat template"), "{message}");
}

/// An embedding with an infinity at the letter q: the sample that has it is named, and the first layer that sees it.
#[test]
fn a_value_that_is_not_finite_is_named() {
    let bench = Bench::new();
    let poisoned = u64::from(b'q') * 32;
    tiny_checkpoint::write(&bench.path("model"), |number| {
        if number == poisoned { f32::INFINITY } else { tiny_checkpoint::random_weight(number) }
    });
    let mut rows: Vec<Value> = (0..10).map(|i| json!({"text": "abcdefgh".repeat(i + 1)})).collect();
    rows[6] = json!({"text": "abcq"});
    bench.write_rows(&rows);
    for way in WAYS {
        let params = json!({"samples": 10});
        let outcome = bench.attempt_as(Some(way), &format!("{way:?}"), params, None, &Recorder::default());
        let (class, message, _) = failure(outcome.unwrap_err());
        assert_eq!(class, Failure::Deterministic);
        assert!(
            message.starts_with("the input of `model.layers.0.self_attn.q_proj` is not finite"),
            "{message}"
        );
        assert!(message.ends_with("rows.jsonl`, line 7"), "{message}");
    }
}

/// A norm that silences a channel: it is zero for every token, and counted.
#[test]
fn dead_channels_are_counted_and_zero() {
    let bench = Bench::new();
    // Embedding, final norm, then block 0's first norm: its channel 5.
    let silent = 256 * 32 + 32 + 5;
    tiny_checkpoint::write(&bench.path("model"), |number| {
        if number == silent { 0.0 } else { tiny_checkpoint::random_weight(number) }
    });
    let (facts, statistics) = bench.run("a", json!({"samples": 20}));
    assert_eq!(facts["dead_channels"], 1);
    let moments = statistics.moments("model.layers.0.self_attn.k_proj").unwrap();
    assert_eq!(moments.get(5).abs().sum(Kind::Float).double_value(&[]), 0.0);
    assert_eq!(statistics.ranges("model.layers.0.self_attn.v_proj").unwrap().absmax.double_value(&[5]), 0.0);
}

#[test]
fn what_was_not_measured_is_said() {
    let bench = Bench::new();
    let (_, statistics) = bench.run("a", json!({"samples": 10, "statistics": "ranges"}));
    let error = statistics.moments("model.layers.0.mlp.up_proj").unwrap_err();
    assert!(error.to_string().ends_with("holds no moments"), "{error}");
    let error = statistics.ranges("model.layers.7.mlp.up_proj").unwrap_err();
    assert!(error.to_string().contains("`model.layers.7.mlp.up_proj`"), "{error}");
}
