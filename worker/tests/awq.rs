//! `quantize` with `method: awq`: what it makes better, and its checkpoints as they are loaded. tests/parity/awq.py
//! compares with llm-compressor's AWQModifier and with the readers of the formats.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calibration;

use std::path::Path;

use qpipe_worker::model::Checkpoint;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

const CASES: [&str; 2] = ["llama-f32", "qwen3-bf16"];
/// Mean distance of logits from the unquantized model's, relative to their own mean magnitude. The models are random
/// and very small; a scale in the wrong place makes it 1 and more.
const DISTANCE: f64 = 0.5;

fn params(options: Value) -> Value {
    let mut params = json!({"method": "awq", "group_size": 32});
    params.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    params
}

fn mean_magnitude(tensor: &Tensor) -> f64 {
    tensor.abs().mean(Kind::Double).double_value(&[])
}

#[test]
fn every_format_is_loaded_and_is_near_the_unquantized_model() {
    let prompts = calibration::prompts(6, 5000);
    for case in CASES {
        let source = calibration::source(case);
        let measured = tempfile::tempdir().unwrap();
        calibration::write(&source, measured.path());
        let expected = calibration::logits(&source, &prompts, Some(Kind::Float));
        for (options, scheme) in [
            (json!({}), "W4A16 g32 asym"),
            (json!({"duo_scaling": false, "clip": false}), "W4A16 g32 asym"),
            (json!({"format": "pack-quantized"}), "W4A16 g32 asym"),
            (json!({"symmetric": true}), "W4A16 g32"),
        ] {
            let scratch = tempfile::tempdir().unwrap();
            calibration::quantize(&source, measured.path(), params(options.clone()), &scratch).unwrap();
            let out = scratch.path().join("out");
            assert_eq!(calibration::scheme_name(&out), scheme);
            let logits = calibration::logits(&out, &prompts, Some(Kind::Float));
            let distance = mean_magnitude(&(logits - &expected)) / mean_magnitude(&expected);
            assert!(distance <= DISTANCE, "{case} {options}: {distance}");
            assert!(distance > 1e-4, "{case} {options} is not quantized at all");
        }
    }
}

#[test]
fn what_was_found_is_said_of_each_input() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let scratch = tempfile::tempdir().unwrap();
    let facts = calibration::quantize(&source, measured.path(), params(json!({})), &scratch).unwrap();
    let notes = facts["notes"].as_object().unwrap();
    // Two blocks; o has no input that could be scaled, since there are fewer value heads than heads.
    let inputs = ["self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj"];
    assert_eq!(notes.len(), 2 * inputs.len());
    for input in inputs {
        let note = &notes[&format!("model.layers.1.{input}")];
        let [loss, before] = ["loss", "loss_of_rounding"].map(|key| note[key].as_f64().unwrap());
        assert!(loss > 0.0 && loss <= before, "{input}: {loss} {before}");
    }
}

#[test]
fn biases_of_scaled_producers_are_scaled_too() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let scratch = tempfile::tempdir().unwrap();
    calibration::quantize(&source, measured.path(), params(json!({})), &scratch).unwrap();
    let (before, after) =
        (Checkpoint::open(&source).unwrap(), Checkpoint::open(&scratch.path().join("out")).unwrap());
    let changed = |name: &str| !before.tensor(name).unwrap().equal(&after.tensor(name).unwrap());
    assert!(changed("model.layers.0.mlp.up_proj.bias"));
    assert!(changed("model.layers.0.input_layernorm.weight"));
    assert!(!changed("model.layers.0.mlp.gate_proj.bias"));
    assert!(!changed("model.layers.0.self_attn.v_proj.bias"));
}

#[test]
fn what_is_stopped_and_resumed_has_the_same_bytes() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let whole = tempfile::tempdir().unwrap();
    calibration::quantize(&source, measured.path(), params(json!({})), &whole).unwrap();
    let pieces = tempfile::tempdir().unwrap();
    let attempts = calibration::quantize_in_pieces(&source, measured.path(), &params(json!({})), &pieces);
    assert!(attempts > 1);
    let read = |folder: &Path| fs_err::read(folder.join("out/model.safetensors")).unwrap();
    assert_eq!(read(whole.path()), read(pieces.path()));
}

#[test]
fn groups_that_do_not_fit_and_other_versions_are_refused_by_name() {
    let source = calibration::source("qwen3-bf16");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let scratch = tempfile::tempdir().unwrap();
    let options = params(json!({"group_size": 128}));
    let result = calibration::quantize(&source, measured.path(), options, &scratch);
    let expected = "tensor `model.layers.0.self_attn.q_proj.weight` has 64 input channels, which are not a multiple of \
                    the group size 128";
    assert_eq!(calibration::message(result), expected);

    calibration::quantize(&source, measured.path(), params(json!({})), &scratch).unwrap();
    let file = scratch.path().join("out/config.json");
    let text = fs_err::read_to_string(&file).unwrap();
    assert!(text.contains("\"gemm\""));
    fs_err::write(&file, text.replace("\"gemm\"", "\"gemv_fast\"")).unwrap();
    let error = calibration::load_error(&scratch.path().join("out"));
    assert!(
        error.contains("`quantization_config.version: gemv_fast` is not supported (known: gemm)"),
        "{error}"
    );
}
