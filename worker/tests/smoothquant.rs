//! `quantize` with `method: smoothquant`: its scales against llm-compressor's, to the bit, and its checkpoints as they
//! are loaded. The golden files, with their provenance, are made by tests/parity/smoothquant.py, which also compares
//! whole models with llm-compressor and transformers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calibration;

use std::path::Path;

use qpipe_nodes::kinds::ScaleRule;
use qpipe_worker::model::{Checkpoint, TensorFiles};
use qpipe_worker::quant::smoothquant::{scales, smooth_norm, smooth_weight};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

const CASES: [&str; 2] = ["llama-f32", "qwen3-bf16"];
/// Mean distance of logits from the unquantized model's, relative to their own mean magnitude. The models are random
/// and very small: what a wrong scale would do is many times that.
const INT8_DISTANCE: f64 = 0.06;
const INT4_DISTANCE: f64 = 0.5;

fn golden(dtype: &str) -> TensorFiles {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/smoothquant"));
    TensorFiles::open(&folder.join(format!("{dtype}.safetensors"))).unwrap()
}

fn params(options: Value) -> Value {
    let mut params = json!({"method": "smoothquant"});
    params.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    params
}

fn mean_magnitude(tensor: &Tensor) -> f64 {
    tensor.abs().mean(Kind::Double).double_value(&[])
}

#[test]
fn scales_weights_and_norms_equal_llm_compressors() {
    for dtype in ["float32", "bfloat16"] {
        let golden = golden(dtype);
        let tensor = |name: String| golden.tensor(&name).unwrap();
        for alpha in [0.8, 0.5] {
            for (norm, parts) in [
                ("input_layernorm", vec!["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
                ("post_attention_layernorm", vec!["mlp.gate_proj", "mlp.up_proj"]),
            ] {
                let [min, max] = ["minimum", "maximum"].map(|figure| tensor(format!("{figure}.{norm}")));
                let weights: Vec<Tensor> =
                    parts.iter().map(|part| tensor(format!("original.{part}"))).collect();
                let weights: Vec<&Tensor> = weights.iter().collect();
                let scales = scales(ScaleRule::Llmc, (&min, &max), &weights, alpha).unwrap();
                for (part, weight) in parts.iter().zip(weights) {
                    let smoothed = smooth_weight(weight, &scales).unwrap();
                    let expected = tensor(format!("smoothed-{alpha}.{part}"));
                    assert_eq!(smoothed.kind(), expected.kind());
                    assert!(smoothed.equal(&expected), "{dtype} {alpha} {part}");
                }
                let smoothed = smooth_norm(&tensor(format!("original.{norm}")), &scales).unwrap();
                assert!(
                    smoothed.equal(&tensor(format!("smoothed-{alpha}.{norm}"))),
                    "{dtype} {alpha} {norm}"
                );
            }
        }
    }
}

#[test]
fn every_variant_is_loaded_and_is_near_the_unquantized_model() {
    let prompts = calibration::prompts(6, 5000);
    for case in CASES {
        let source = calibration::source(case);
        let measured = tempfile::tempdir().unwrap();
        calibration::write(&source, measured.path());
        let expected = calibration::logits(&source, &prompts, Some(Kind::Float));
        for (options, scheme, most) in [
            (json!({"scheme": "W8A8"}), "W8A8", INT8_DISTANCE),
            (json!({"scheme": "W8A8", "scale_rule": "mit", "alpha": 0.7}), "W8A8", INT8_DISTANCE),
            (json!({"scheme": "W8A8", "activations": "static"}), "W8A8 static", INT8_DISTANCE),
            (json!({"scheme": "W4A8", "group_size": 32}), "W4A8 g32", INT4_DISTANCE),
            (
                json!({"scheme": "W4A8", "group_size": 32, "format": "int-quantized"}),
                "W4A8 g32 float",
                INT4_DISTANCE,
            ),
        ] {
            let scratch = tempfile::tempdir().unwrap();
            calibration::quantize(&source, measured.path(), params(options), &scratch).unwrap();
            let out = scratch.path().join("out");
            assert_eq!(calibration::scheme_name(&out), scheme);
            let logits = calibration::logits(&out, &prompts, Some(Kind::Float));
            let distance = mean_magnitude(&(logits - &expected)) / mean_magnitude(&expected);
            assert!(distance <= most, "{case} {scheme}: {distance}");
            assert!(distance > 1e-4, "{case} {scheme} is not quantized at all");
        }
    }
}

#[test]
fn four_bits_stay_four_bits_on_disk() {
    let source = calibration::source("qwen3-bf16");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let scratch = tempfile::tempdir().unwrap();
    let options = params(json!({"scheme": "W4A8", "group_size": 32}));
    let facts = calibration::quantize(&source, measured.path(), options, &scratch).unwrap();
    let (square, narrow, wide) = (2 * 64 * 64, 2 * 32 * 64, 3 * 96 * 64);
    let channels = 64 + 32 + 32 + 64 + 96 + 96 + 64;
    let weights = square + narrow + wide;
    // Half a byte a weight, a scale and a zero a group, two bytes a channel; the norms are written anew.
    let norms = 2 * 64 * 2;
    assert_eq!(facts["linear_bytes_after"], weights / 2 + 2 * weights / 32 + 2 * channels + norms);
    assert_eq!(facts["activations"], "dynamic: largest magnitude of the token / 127.5");
}

#[test]
fn static_scales_are_the_calibrated_magnitudes_behind_the_smoothing() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let scratch = tempfile::tempdir().unwrap();
    let options = params(json!({"scheme": "W8A8", "activations": "static", "alpha": 0.6}));
    calibration::quantize(&source, measured.path(), options, &scratch).unwrap();
    let out = Checkpoint::open(&scratch.path().join("out")).unwrap();
    // What goes into q_proj of the first block on the calibration's own samples, smoothed by the new norm.
    let again = tempfile::tempdir().unwrap();
    calibration::write_with_norms(&source, &out, again.path());
    let block = TensorFiles::open(&again.path().join("block-00000.safetensors")).unwrap();
    for part in ["self_attn.q_proj", "mlp.down_proj"] {
        let extreme = |figure: &str| {
            let tensor = block.tensor(&format!("model.layers.0.{part}.{figure}")).unwrap();
            tensor.abs().max().double_value(&[])
        };
        let largest = extreme("minimum").max(extreme("maximum"));
        let scale = out.tensor(&format!("model.layers.0.{part}.input_scale")).unwrap();
        let ratio = scale.double_value(&[0]) * 127.5 / largest;
        assert!((ratio - 1.0).abs() < 1e-5, "{part}: {ratio}");
    }
}

#[test]
fn alpha_is_searched_on_the_samples_and_said() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let scratch = tempfile::tempdir().unwrap();
    let options = params(json!({"scheme": "W8A8", "alpha": "search"}));
    let facts = calibration::quantize(&source, measured.path(), options.clone(), &scratch).unwrap();
    assert_eq!(facts["alpha_searched"], true);
    let mut errors = [0.0_f64; 21];
    for block in 0.. {
        let unit = scratch.path().join(format!("units/alpha-{block:05}.json"));
        let Ok(text) = fs_err::read(unit) else { break };
        let of_block: Vec<f64> = serde_json::from_slice(&text).unwrap();
        assert_eq!(of_block.len(), errors.len());
        errors.iter_mut().zip(of_block).for_each(|(sum, error)| *sum += error);
    }
    let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
    let place = errors.iter().position(|&error| error == least).unwrap();
    assert_eq!(facts["alpha"], place as f64 / 20.0);
    // The same bytes as with that alpha given.
    let given = tempfile::tempdir().unwrap();
    let options = params(json!({"scheme": "W8A8", "alpha": facts["alpha"]}));
    calibration::quantize(&source, measured.path(), options, &given).unwrap();
    let read = |folder: &Path| fs_err::read(folder.join("out/model.safetensors")).unwrap();
    assert_eq!(read(scratch.path()), read(given.path()));
}

#[test]
fn what_is_stopped_and_resumed_has_the_same_bytes() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let options = params(json!({"scheme": "W4A8", "group_size": 32, "alpha": "search"}));
    let whole = tempfile::tempdir().unwrap();
    calibration::quantize(&source, measured.path(), options.clone(), &whole).unwrap();
    let pieces = tempfile::tempdir().unwrap();
    let attempts = calibration::quantize_in_pieces(&source, measured.path(), &options, &pieces);
    assert!(attempts > 1);
    let read = |folder: &Path| fs_err::read(folder.join("out/model.safetensors")).unwrap();
    assert_eq!(read(whole.path()), read(pieces.path()));
}

#[test]
fn a_group_that_does_not_fit_is_refused_by_name() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let scratch = tempfile::tempdir().unwrap();
    let result = calibration::quantize(&source, measured.path(), params(json!({"scheme": "W4A8"})), &scratch);
    let expected = "tensor `model.layers.0.self_attn.q_proj.weight` has 64 input channels, which are not a multiple of \
                    the group size 128";
    assert_eq!(calibration::message(result), expected);
    assert!(!scratch.path().join("out").exists());
}

#[test]
fn a_calibration_of_another_model_is_refused() {
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&calibration::source("qwen3-bf16"), measured.path());
    let scratch = tempfile::tempdir().unwrap();
    let options = params(json!({"scheme": "W8A8"}));
    let result = calibration::quantize(&calibration::source("llama-f32"), measured.path(), options, &scratch);
    let message = calibration::message(result);
    assert_eq!(message, "the calibration is of another model: it has 1 layers, the model 2");
}

#[test]
fn gptq_rounds_smoothed_weights_with_less_error_on_the_calibrated_inputs() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let prompts = calibration::prompts(12, 1);
    let expected = calibration::logits(&source, &prompts, Some(Kind::Float));
    for options in [
        json!({"scheme": "W4A8", "group_size": 32}),
        json!({"scheme": "W4A8", "group_size": 32, "format": "int-quantized"}),
    ] {
        let mut distances = Vec::new();
        for rounding in ["rtn", "gptq"] {
            let mut options = params(options.clone());
            options["rounding"] = json!(rounding);
            let scratch = tempfile::tempdir().unwrap();
            let facts = calibration::quantize(&source, measured.path(), options, &scratch).unwrap();
            assert_eq!(facts.contains_key("notes"), rounding == "gptq");
            let logits = calibration::logits(&scratch.path().join("out"), &prompts, Some(Kind::Float));
            distances.push(mean_magnitude(&(logits - &expected)));
        }
        assert!(distances[1] < 0.9 * distances[0], "{options}: {distances:?}");
    }
}
