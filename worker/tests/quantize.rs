//! `quantize` against llm-compressor, byte by byte, and the quantized layers against transformers. The golden
//! files, with their provenance, are made by tests/parity/quant_rtn.py, which also compares larger models.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod wanted;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use fs_err as fs;
use qpipe_nodes::protocol::{Action, Device, Event, Failure, Input};
use qpipe_worker::context::{Context, Events, Facts};
use qpipe_worker::error::ActionError;
use qpipe_worker::model::{Attention, Checkpoint, Decoder, LoadOptions, Products, TensorFiles, save};
use qpipe_worker::quant;
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

const CASES: [&str; 2] = ["llama-f32", "qwen3-bf16"];
const SCHEMES: [&str; 2] = ["W8A8", "W4A16"];
/// What the golden W4A16 checkpoints have.
const GROUP: i64 = 32;
/// Weight-only float32 logits may differ from transformers' by this share of the largest.
const WEIGHT_ONLY_TOLERANCE: f64 = 1e-4;
/// W8A8 logits may be this many times as far from transformers' as its eager and SDPA runs are from each other,
/// over many prompts: where an activation lies near the middle between two codes, the last bit of a sum decides.
const W8A8_RATIO: f64 = 2.0;
/// bfloat16 W4A16 logits from float32 ones, as a share of the largest: what two random layers make of bfloat16's
/// eight bits. The kernels themselves are held to their reference in kernels/tests.
const BFLOAT16_TOLERANCE: f64 = 8e-2;

/// Keeps events, and sets `stop` at the first that says how far the action is.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    stops: bool,
    stop: AtomicBool,
}

impl Events for Recorder {
    fn send(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
        self.stop.store(self.stops, Ordering::SeqCst);
    }
}

fn golden(case: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/quant")).join(case)
}

fn parameters(scheme: &str) -> Value {
    let group = (scheme == "W4A16").then_some(GROUP);
    json!({ "method": "rtn", "scheme": scheme, "group_size": group })
}

fn quantize(
    source: &Path,
    params: Value,
    scratch: &TempDir,
    recorder: &Recorder,
) -> Result<Facts, ActionError> {
    let action = Action {
        id: 1,
        kind: "quantize".to_owned(),
        params,
        inputs: [("model".to_owned(), Input::One(source.to_owned()))].into(),
        scratch: scratch.path().to_owned(),
        device: Device::Cpu,
        threads: 1,
        max_memory: None,
    };
    quant::run(&Context::new(&action, recorder, &recorder.stop))
}

/// The golden source `case` quantized here; dropped with the folder.
fn quantized(case: &str, scheme: &str) -> (TempDir, Checkpoint) {
    let scratch = tempfile::tempdir().unwrap();
    quantize(&golden(case).join("source"), parameters(scheme), &scratch, &Recorder::default()).unwrap();
    let checkpoint = Checkpoint::open(&scratch.path().join("out")).unwrap();
    (scratch, checkpoint)
}

/// The logits of `ids` at the last `count` positions, [B, count, vocabulary].
fn logits(checkpoint: &Checkpoint, ids: &Tensor, kind: Option<Kind>, count: i64) -> Tensor {
    let _no_gradients = tch::no_grad_guard();
    let decoder = Decoder::load(checkpoint, &LoadOptions::inference(tch::Device::Cpu, kind)).unwrap();
    let (rows, length) = ids.size2().unwrap();
    let positions = Tensor::arange(length, (Kind::Int64, tch::Device::Cpu)).expand([rows, length], false);
    let hidden = decoder.hidden(ids, &positions, &Attention::Causal, None);
    decoder.logits(&hidden.narrow(1, length - count, count))
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Float).abs().max().double_value(&[])
}

fn distance(left: &Tensor, right: &Tensor) -> f64 {
    largest(&(left.to_kind(Kind::Float) - right.to_kind(Kind::Float)))
}

fn message(result: Result<Facts, ActionError>) -> (Failure, String) {
    match result.unwrap_err() {
        ActionError::Failed { class, message, .. } => (class, message),
        ActionError::Stopped => panic!("stopped"),
    }
}

#[test]
fn codes_scales_and_config_equal_llm_compressors() {
    for case in CASES {
        let source = Checkpoint::open(&golden(case).join("source")).unwrap();
        for scheme in SCHEMES {
            let (_scratch, ours) = quantized(case, scheme);
            let theirs = TensorFiles::open(&golden(case).join(format!("{scheme}.safetensors"))).unwrap();
            let expected: Vec<&str> = theirs.names().filter(|name| name.starts_with("model.")).collect();
            for name in &expected {
                let (ours, theirs) = (ours.tensor(name).unwrap(), theirs.tensor(name).unwrap());
                assert_eq!(
                    (ours.kind(), ours.size()),
                    (theirs.kind(), theirs.size()),
                    "{case} {scheme} {name}"
                );
                assert!(ours.equal(&theirs), "{case} {scheme} {name}");
            }
            // The rest is the source, and nothing is there besides.
            for name in ours.names().filter(|name| !expected.contains(name)) {
                assert!(
                    ours.tensor(name).unwrap().equal(&source.tensor(name).unwrap()),
                    "{case} {scheme} {name}"
                );
            }
            let weights = source.names().filter(|name| name.contains("_proj.weight")).count();
            let parts = if scheme == "W8A8" { 2 } else { 3 };
            assert_eq!(expected.len(), weights * parts);
            assert_eq!(ours.names().count(), source.names().count() - weights + expected.len());

            let text = fs::read_to_string(golden(case).join(format!("{scheme}.json"))).unwrap();
            let config: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(ours.quantization_config(), Some(&config), "{case} {scheme}");
        }
    }
}

#[test]
fn weight_only_logits_equal_transformers() {
    for case in CASES {
        let (_scratch, ours) = quantized(case, "W4A16");
        let theirs = TensorFiles::open(&golden(case).join("W4A16.safetensors")).unwrap();
        let (ids, expected) = (theirs.tensor("ids").unwrap(), theirs.tensor("sdpa").unwrap());
        for (kind, tolerance) in [(Kind::Float, WEIGHT_ONLY_TOLERANCE), (Kind::BFloat16, BFLOAT16_TOLERANCE)]
        {
            let logits = logits(&ours, &ids, Some(kind), expected.size()[1]);
            let found = distance(&logits, &expected) / largest(&expected);
            assert!(found <= tolerance, "{case} in {kind:?}: {found:e}");
        }
    }
}

#[test]
fn w8a8_logits_are_as_near_to_transformers_as_it_is_to_itself() {
    for case in CASES {
        let (_scratch, ours) = quantized(case, "W8A8");
        let theirs = TensorFiles::open(&golden(case).join("W8A8.safetensors")).unwrap();
        let [ids, eager, sdpa] = ["ids", "eager", "sdpa"].map(|name| theirs.tensor(name).unwrap());
        let logits = logits(&ours, &ids, None, sdpa.size()[1]);
        assert_eq!(logits.kind(), sdpa.kind());
        let (found, own) = (distance(&logits, &sdpa), distance(&eager, &sdpa));
        assert!(found <= W8A8_RATIO * own, "{case}: {found:e} from transformers, which differs by {own:e}");
    }
}

/// Few rows and many are served by other kernels; where an activation lies near the middle between two codes, the last bit of a sum
/// decides.
#[test]
fn what_is_wanted_of_a_quantized_pass_is_that_of_the_whole_pass() {
    for (scheme, tolerance) in [("W8A8", 0.1), ("W4A16", 1e-3)] {
        let (_folder, checkpoint) = quantized("llama-f32", scheme);
        let options = LoadOptions {
            products: Products::FASTEST,
            ..LoadOptions::inference(tch::Device::Cpu, Some(Kind::Float))
        };
        wanted::check(&Decoder::load(&checkpoint, &options).unwrap(), scheme, tolerance);
    }
}

#[test]
fn facts_and_progress_say_what_was_done() {
    let scratch = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let facts =
        quantize(&golden("qwen3-bf16").join("source"), parameters("W4A16"), &scratch, &recorder).unwrap();
    assert_eq!(facts["scheme"], "W4A16");
    assert_eq!(facts["group_size"], 32);
    assert_eq!(facts["layers"], 7);
    let weights = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64;
    assert_eq!(facts["linear_bytes_before"], 2 * weights);
    // Half a byte a weight, two bytes for each group of 32, two numbers for each shape.
    assert_eq!(facts["linear_bytes_after"], weights / 2 + weights / 32 * 2 + 7 * 16);
    let files = fs::metadata(scratch.path().join("out/model.safetensors")).unwrap().len();
    assert!(facts["bytes_after"].as_u64().unwrap() < files);

    let events = recorder.events.lock().unwrap();
    let Some(Event::Progress { done: 1, total: 1, unit, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(unit, "layers");
}

#[test]
fn it_stops_between_layers() {
    let scratch = tempfile::tempdir().unwrap();
    let recorder = Recorder { stops: true, ..Recorder::default() };
    let result = quantize(&golden("llama-f32").join("source"), parameters("W8A8"), &scratch, &recorder);
    assert!(matches!(result, Err(ActionError::Stopped)));
}

#[test]
fn a_quantized_model_is_refused() {
    let (scratch, _) = quantized("llama-f32", "W8A8");
    let again = tempfile::tempdir().unwrap();
    let result = quantize(&scratch.path().join("out"), parameters("W4A16"), &again, &Recorder::default());
    let expected = "the model is already quantized (`compressed-tensors`)";
    assert_eq!(message(result), (Failure::User, expected.to_owned()));
}

#[test]
fn a_group_that_does_not_fit_is_refused_before_anything_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let params = json!({ "method": "rtn", "scheme": "W4A16" });
    let result = quantize(&golden("llama-f32").join("source"), params, &scratch, &Recorder::default());
    let (class, message) = message(result);
    assert_eq!(class, Failure::User);
    assert_eq!(
        message,
        "tensor `model.layers.0.self_attn.q_proj.weight` has 64 input channels, which are not a multiple of the \
         group size 128"
    );
    assert!(!scratch.path().join("out").exists());
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let source = Checkpoint::open(&golden("llama-f32").join("source")).unwrap();
    let broken = tempfile::tempdir().unwrap();
    let culprit = "model.layers.0.mlp.up_proj.weight";
    let tensors: Vec<(String, Tensor)> = source
        .names()
        .map(|name| {
            let tensor = source.tensor(name).unwrap().copy();
            if name == culprit {
                let _ = tensor.narrow(0, 0, 1).narrow(1, 0, 1).fill_(f64::NAN);
            }
            (name.to_owned(), tensor)
        })
        .collect();
    save::write_tensors(&broken.path().join("model.safetensors"), &tensors).unwrap();
    fs::copy(source.folder.join("config.json"), broken.path().join("config.json")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let result = quantize(broken.path(), parameters("W8A8"), &scratch, &Recorder::default());
    assert_eq!(
        message(result),
        (Failure::Deterministic, format!("tensor `{culprit}` has values that are not finite: 1"))
    );
}

#[test]
fn tensors_that_contradict_config_json_are_named() {
    let (scratch, checkpoint) = quantized("llama-f32", "W4A16");
    let out = scratch.path().join("out");
    let scale = "model.layers.0.mlp.up_proj.weight_scale";
    let tensors: Vec<(String, Tensor)> = checkpoint
        .names()
        .map(|name| {
            let tensor = checkpoint.tensor(name).unwrap();
            (name.to_owned(), if name == scale { tensor.narrow(1, 0, 1).copy() } else { tensor.copy() })
        })
        .collect();
    fs::remove_file(out.join("model.safetensors")).unwrap();
    save::write_tensors(&out.join("model.safetensors"), &tensors).unwrap();
    let checkpoint = Checkpoint::open(&out).unwrap();
    let error = Decoder::load(&checkpoint, &LoadOptions::inference(tch::Device::Cpu, None)).unwrap_err();
    assert!(error.to_string().contains(scale), "{error}");
}
