//! `calibrate` against a plain computation, and against itself: in parts, in another mode, killed and resumed.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod tiny_checkpoint;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use fs_err as fs;
use qpipe_nodes::protocol::{Action, Device, Event, Input};
use qpipe_worker::calibrate::{self, Statistics};
use qpipe_worker::context::{Context, Events, Facts};
use qpipe_worker::error::ActionError;
use qpipe_worker::model::block::INPUTS;
use qpipe_worker::model::{Attention, BlockRunner, Checkpoint, Decoder, LoadOptions};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

/// Nobody listens.
#[derive(Default)]
struct Recorder {
    stop: AtomicBool,
}

impl Events for Recorder {
    fn send(&self, _event: &Event) {}
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
        let mut inputs = vec![
            ("model".to_owned(), Input::One(self.path("model"))),
            ("data".to_owned(), Input::One(self.path("rows.jsonl"))),
        ];
        inputs.extend(previous.map(|name| ("previous".to_owned(), Input::One(self.path(name).join("out")))));
        let mut all = json!({"max_length": 2048, "seed": 0, "statistics": "moments"});
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        let action = Action {
            id: 1,
            kind: "calibrate".to_owned(),
            params: all,
            inputs: inputs.into_iter().collect(),
            scratch: self.path(scratch),
            device: Device::Cpu,
            threads: 1,
            max_memory: None,
        };
        calibrate::run(&Context::new(&action, recorder, &recorder.stop))
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
        let (_, sharing) = INPUTS.iter().find(|(first, _)| first == &part).unwrap();
        for linear in *sharing {
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
    assert!(runner.finish(&hidden).unwrap().equal(&expected));
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
