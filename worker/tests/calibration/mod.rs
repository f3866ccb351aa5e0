//! A calibration of the tiny checkpoints in tests/golden/quant, and `quantize` with it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use qpipe_nodes::kinds::Extent;
use qpipe_nodes::protocol::{Action, Device, Event, Input};
use qpipe_worker::calibrate::accumulate::Accumulator;
use qpipe_worker::calibrate::measured;
use qpipe_worker::calibrate::statistics::{Summary, block_file, write_samples};
use qpipe_worker::context::{Context, Events, Facts};
use qpipe_worker::error::ActionError;
use qpipe_worker::model::block::{INPUTS, Source};
use qpipe_worker::model::{Attention, BlockRunner, Checkpoint, Decoder, LoadOptions};
use qpipe_worker::quant;
use serde_json::Value;
use tch::{Kind, Tensor};
use tempfile::TempDir;

const SAMPLES: usize = 12;
const TOKENS: usize = 24;

/// The source of the golden case `case` (`llama-f32`, `qwen3-bf16`), which has a vocabulary of 32.
pub(crate) fn source(case: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/quant")).join(case).join("source")
}

/// Random ids, [count, TOKENS].
pub(crate) fn prompts(count: usize, seed: usize) -> Vec<Vec<i64>> {
    let id = |place: usize| ((place + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as i64 % 32;
    (0..count).map(|row| (0..TOKENS).map(|place| id(row * TOKENS + place)).collect()).collect()
}

/// The logits of `prompts` (all of one length), [B, T, vocabulary], f32.
pub(crate) fn logits(folder: &Path, prompts: &[Vec<i64>], kind: Option<Kind>) -> Tensor {
    let _no_gradients = tch::no_grad_guard();
    let checkpoint = Checkpoint::open(folder).unwrap();
    let decoder = Decoder::load(&checkpoint, &LoadOptions::inference(tch::Device::Cpu, kind)).unwrap();
    let (ids, positions) = laid(prompts);
    decoder.logits(&decoder.hidden(&ids, &positions, &Attention::Causal, None)).to_kind(Kind::Float)
}

/// How the linear layers in `folder` are stored and multiplied.
pub(crate) fn scheme_name(folder: &Path) -> String {
    let checkpoint = Checkpoint::open(folder).unwrap();
    Decoder::load(&checkpoint, &LoadOptions::inference(tch::Device::Cpu, None)).unwrap().scheme_name()
}

/// Why the model in `folder` is not loaded.
pub(crate) fn load_error(folder: &Path) -> String {
    let checkpoint = Checkpoint::open(folder).unwrap();
    Decoder::load(&checkpoint, &LoadOptions::inference(tch::Device::Cpu, None)).unwrap_err().to_string()
}

/// What a failed action says.
pub(crate) fn message(result: Result<Facts, ActionError>) -> String {
    match result.unwrap_err() {
        ActionError::Failed { message, .. } => message,
        ActionError::Stopped => panic!("stopped"),
    }
}

fn laid(prompts: &[Vec<i64>]) -> (Tensor, Tensor) {
    let ids = Tensor::from_slice(&prompts.concat()).view([prompts.len() as i64, -1]);
    let positions = Tensor::arange(ids.size()[1], (Kind::Int64, tch::Device::Cpu)).expand_as(&ids);
    (ids, positions)
}

/// Measures the model in `model` as `calibrate` does and writes the artifact into `out`.
pub(crate) fn write(model: &Path, out: &Path) {
    measure(model, None, out);
}

/// The same with the norms of `other`. Only the inputs behind norms see them.
pub(crate) fn write_with_norms(model: &Path, other: &Checkpoint, out: &Path) {
    measure(model, Some(other), out);
}

fn measure(model: &Path, norms: Option<&Checkpoint>, out: &Path) {
    let _no_gradients = tch::no_grad_guard();
    let checkpoint = Checkpoint::open(model).unwrap();
    let runner = BlockRunner::new(&checkpoint, LoadOptions::inference(tch::Device::Cpu, None)).unwrap();
    let sequences = prompts(SAMPLES, 1);
    fs_err::create_dir_all(out).unwrap();
    write_samples(out, &sequences).unwrap();
    let (ids, positions) = laid(&sequences);
    let mut hidden = runner.embed(&ids).unwrap();
    let frame = runner.frame(&positions, &Attention::Causal);
    let mut summary = Summary::new(Extent::Moments, SAMPLES as u64, (SAMPLES * TOKENS) as u64, 0);
    for index in 0..runner.blocks() {
        let block = runner.load_block(index).unwrap();
        let mut accumulators = Vec::new();
        hidden = runner.forward(&block, hidden, &frame, &mut |part, input| {
            let known = INPUTS[accumulators.len()];
            assert_eq!(part, known.first);
            let mut x = input.reshape([-1, input.size()[2]]);
            if let (Source::Norm(norm), Some(other)) = (known.source, norms) {
                let name = format!("model.layers.{index}.{norm}.weight");
                x = x / checkpoint.tensor(&name).unwrap() * other.tensor(&name).unwrap();
            }
            let mut accumulator = Accumulator::new(x.size()[1], Extent::Moments, tch::Device::Cpu).unwrap();
            assert!(accumulator.add(&x).unwrap());
            accumulators.push(accumulator);
        });
        measured::write(&out.join(block_file(index)), index, &[accumulators]).unwrap();
        summary.add_block(out, index).unwrap();
    }
    summary.write(out).unwrap();
}

/// Stops the action at the event with the number `stops_at`, from 1; 0: never.
struct Listener {
    stops_at: usize,
    heard: AtomicUsize,
    stop: AtomicBool,
}

impl Events for Listener {
    fn send(&self, _event: &Event) {
        let number = self.heard.fetch_add(1, Ordering::SeqCst) + 1;
        self.stop.store(self.stops_at > 0 && number >= self.stops_at, Ordering::SeqCst);
    }
}

/// Quantizes `model` with the calibration in `calibration`, into `scratch/out`.
pub(crate) fn quantize(
    model: &Path,
    calibration: &Path,
    params: Value,
    scratch: &TempDir,
) -> Result<Facts, ActionError> {
    attempt(model, calibration, params, scratch, 0)
}

/// Quantizes `model` by a method without calibration, into `scratch/out`.
pub(crate) fn quantize_without(model: &Path, params: Value, scratch: &TempDir) -> Result<Facts, ActionError> {
    run(&[("model", model)], params, scratch, 0)
}

/// The same as [`quantize`] in as many attempts as it takes when each is stopped at its second event; how many that were.
pub(crate) fn quantize_in_pieces(
    model: &Path,
    calibration: &Path,
    params: &Value,
    scratch: &TempDir,
) -> usize {
    for attempts in 1..100 {
        match attempt(model, calibration, params.clone(), scratch, 2) {
            Ok(_) => return attempts,
            Err(ActionError::Stopped) => {}
            Err(ActionError::Failed { message, .. }) => panic!("{message}"),
        }
    }
    panic!("it never ends")
}

fn attempt(
    model: &Path,
    calibration: &Path,
    params: Value,
    scratch: &TempDir,
    stops_at: usize,
) -> Result<Facts, ActionError> {
    run(&[("model", model), ("calibration", calibration)], params, scratch, stops_at)
}

fn run(
    inputs: &[(&str, &Path)],
    params: Value,
    scratch: &TempDir,
    stops_at: usize,
) -> Result<Facts, ActionError> {
    let input = |&(port, path): &(&str, &Path)| (port.to_owned(), Input::One(path.to_owned()));
    let action = Action {
        id: 1,
        kind: "quantize".to_owned(),
        params,
        inputs: inputs.iter().map(input).collect(),
        scratch: scratch.path().to_owned(),
        device: Device::Cpu,
        threads: 1,
        max_memory: None,
    };
    let listener = Listener { stops_at, heard: AtomicUsize::new(0), stop: AtomicBool::new(false) };
    quant::run(&Context::new(&action, &listener, &listener.stop))
}
