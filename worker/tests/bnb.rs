//! `quantize` with `method: bnb-nf4` and `bnb-int8` against bitsandbytes, byte by byte, and its checkpoints, also those that
//! transformers saved, as they are loaded. The golden files, with their provenance, are made by tests/parity/bnb.py,
//! which also compares larger models.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calibration;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use qpipe_kernels::nf4::Absmax;
use qpipe_kernels::{Codes, QuantizedWeight, llm_int8};
use qpipe_worker::model::{Checkpoint, TensorFiles, save};
use qpipe_worker::quant::{bnb_int8, bnb_nf4};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const CASES: [&str; 2] = ["llama-f32", "qwen3-bf16"];
/// Folder, parameters, and what the loaded model says of itself.
const FORMATS: [(&str, &str, &str); 3] = [
    ("nf4", r#"{"method": "bnb-nf4"}"#, "NF4"),
    ("nf4-double", r#"{"method": "bnb-nf4", "double_quant": true}"#, "NF4 double-quantized"),
    ("int8", r#"{"method": "bnb-int8"}"#, "LLM.int8()"),
];
/// Float32 logits may differ from transformers' by this share of the largest. LLM.int8() is not continuous: an activation
/// between two codes, or at the threshold, may fall on either side by the last bit of a sum.
const TOLERANCES: [(&str, f64); 3] = [("nf4", 1e-4), ("nf4-double", 1e-4), ("int8", 2e-2)];
/// Of the 8-bit codes of scales, this share may be one off, and other figures of double quantization may differ by the
/// last bits: the mean and the map depend on the processor's vectors.
const NESTED_SHARE: f64 = 0.005;
const NESTED_TOLERANCE: f64 = 1e-6;

fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/bnb")).join(path)
}

/// The golden source `case` quantized with `params`; dropped with the folder.
fn quantized(case: &str, params: &str) -> (TempDir, Checkpoint) {
    let scratch = tempfile::tempdir().unwrap();
    let params = serde_json::from_str(params).unwrap();
    calibration::quantize(&calibration::source(case), Path::new("none"), params, &scratch).unwrap();
    let checkpoint = Checkpoint::open(&scratch.path().join("out")).unwrap();
    (scratch, checkpoint)
}

fn largest(tensor: &Tensor) -> f64 {
    f64::try_from(tensor.to_kind(Kind::Double).abs().max()).unwrap()
}

fn difference(left: &Tensor, right: &Tensor) -> f64 {
    largest(&(left.to_kind(Kind::Double) - right.to_kind(Kind::Double)))
}

/// The quantization state of a layer, without the offset, and the offset.
fn state(tensor: &Tensor) -> (Value, Option<f64>) {
    let mut state: Value = serde_json::from_slice(&Vec::<u8>::try_from(tensor).unwrap()).unwrap();
    let offset = state.as_object_mut().unwrap().remove("nested_offset");
    (state, offset.and_then(|offset| offset.as_f64()))
}

/// Panics unless `ours` is `theirs`, up to what double quantization leaves to the processor.
fn assert_equal(name: &str, ours: &Tensor, theirs: &Tensor) {
    if name.contains("quant_state") {
        let ((ours, offset), (theirs, expected)) = (state(ours), state(theirs));
        assert_eq!(ours, theirs, "{name}");
        assert_eq!(offset.is_some(), expected.is_some(), "{name}");
        if let (Some(offset), Some(expected)) = (offset, expected) {
            assert!((offset - expected).abs() <= NESTED_TOLERANCE * expected, "{name}");
        }
        return;
    }
    assert_eq!((ours.kind(), ours.size()), (theirs.kind(), theirs.size()), "{name}");
    if name.contains("nested") {
        assert!(difference(ours, theirs) <= NESTED_TOLERANCE * largest(theirs), "{name}");
    } else if name.ends_with("absmax") && ours.kind() == Kind::Uint8 {
        let off = (ours.to_kind(Kind::Int) - theirs.to_kind(Kind::Int)).abs();
        assert!(largest(&off) <= 1.0, "{name}");
        let count = f64::try_from(off.sum(Kind::Double)).unwrap();
        assert!(count <= (NESTED_SHARE * off.numel() as f64).ceil(), "{name}: {count} codes are one off");
    } else {
        assert!(ours.equal(theirs), "{name}");
    }
}

#[test]
fn tensors_and_config_equal_what_transformers_saves() {
    for case in CASES {
        for (format, params, _) in FORMATS {
            let (_scratch, ours) = quantized(case, params);
            let theirs = Checkpoint::open(&golden(case).join(format)).unwrap();
            let names = |checkpoint: &Checkpoint| -> BTreeSet<String> {
                checkpoint.names().map(str::to_owned).collect()
            };
            assert_eq!(names(&ours), names(&theirs), "{case} {format}");
            for name in theirs.names() {
                assert_equal(name, &ours.tensor(name).unwrap(), &theirs.tensor(name).unwrap());
            }
            assert_eq!(ours.quantization_config(), theirs.quantization_config(), "{case} {format}");
        }
    }
}

#[test]
fn what_transformers_saved_is_loaded_with_its_logits() {
    for case in CASES {
        for ((format, _, scheme), (_, tolerance)) in FORMATS.into_iter().zip(TOLERANCES) {
            let folder = golden(case).join(format);
            assert_eq!(calibration::scheme_name(&folder), scheme);
            let expected = TensorFiles::open(&folder.join("logits.safetensors")).unwrap();
            let ids = Vec::<Vec<i64>>::try_from(expected.tensor("ids").unwrap()).unwrap();
            let expected = expected.tensor("logits").unwrap();
            for (row, prompt) in ids.into_iter().enumerate() {
                let ours = calibration::logits(&folder, &[prompt], Some(Kind::Float));
                let expected = expected.narrow(0, row as i64, 1);
                let found = difference(&ours, &expected) / largest(&expected);
                assert!(found <= tolerance, "{case} {format}, prompt {row}: {found:e}");
            }
        }
    }
}

#[test]
fn matrices_of_all_shapes_and_types_equal_bitsandbytes() {
    let _no_gradients = tch::no_grad_guard();
    let golden = TensorFiles::open(&golden("matrices.safetensors")).unwrap();
    let cases: Vec<&str> = golden.names().filter_map(|name| name.strip_suffix(".source")).collect();
    assert_eq!(cases.len(), 19);
    for case in cases {
        let expected = |part: &str| golden.tensor(&format!("{case}.{part}")).unwrap();
        let source = expected("source");
        let rounded = bnb_nf4::round(&source).unwrap();
        assert!(rounded.packed.view([-1, 1]).equal(&expected("nf4.weight")), "{case}");
        assert!(rounded.absmax.equal(&expected("nf4.weight.absmax")), "{case}");
        let Absmax::Nested { code, map, scale, offset } = bnb_nf4::nest(&rounded.absmax).unwrap() else {
            panic!("not nested");
        };
        for (part, ours) in [("absmax", code), ("nested_absmax", scale), ("nested_quant_map", map)] {
            let name = format!("nf4-double.weight.{part}");
            assert_equal(&format!("{case}.{name}"), &ours, &expected(&name));
        }
        let (_, expected_offset) = state(&expected("nf4-double.weight.quant_state.bitsandbytes__nf4"));
        let distance = (f64::from(offset) - expected_offset.unwrap()).abs();
        assert!(distance <= NESTED_TOLERANCE * expected_offset.unwrap(), "{case}");
        let rounded = bnb_int8::round(case, &source).unwrap();
        assert!(rounded.codes.equal(&expected("int8.weight")), "{case}");
        assert!(rounded.absmax.equal(&expected("int8.SCB")), "{case}");
    }
}

#[test]
fn a_layer_of_llm_int8_equals_bitsandbytes_in_its_integers_and_its_output() {
    let _no_gradients = tch::no_grad_guard();
    let golden = TensorFiles::open(&golden("llm_int8.safetensors")).unwrap();
    let tensor = |name: &str| golden.tensor(name).unwrap();
    for threshold in [6.0, 0.0] {
        let name = |part: &str| format!("threshold-{threshold}.{part}");
        let rows = llm_int8::quantize_rows(&tensor("x"), threshold).unwrap();
        assert!(rows.codes.equal(&tensor(&name("codes"))));
        assert!(rows.absmax.view([-1]).equal(&tensor(&name("absmax"))));
        match rows.outliers {
            Some(outliers) => assert!(outliers.equal(&tensor(&name("outliers")))),
            None => assert!(!golden.has(&name("outliers"))),
        }
        let sums = rows.codes.internal_int_mm(&tensor("weight").tr());
        assert!(sums.equal(&tensor(&name("sums"))));
        for (kind, word, tolerance) in [
            (Kind::Float, "float32", 1e-6),
            (Kind::BFloat16, "bfloat16", 2_f64.powi(-8)),
            (Kind::Half, "float16", 2_f64.powi(-11)),
        ] {
            let codes = Codes::LlmInt8 { weight: tensor("weight"), absmax: tensor("SCB"), threshold };
            let weight = QuantizedWeight::new(codes, Some(tensor("bias")), 24, 50).unwrap();
            let layer = qpipe_kernels::prepare(&weight, Device::Cpu, kind).unwrap();
            let y = layer.forward(&tensor("x").to_kind(kind));
            let expected = tensor(&name(word));
            let found = difference(&y, &expected) / largest(&expected);
            assert!(found <= tolerance, "threshold {threshold}, {word}: {found:e}");
        }
    }
}

#[test]
fn what_is_loaded_is_near_the_unquantized_model() {
    let prompts = calibration::prompts(6, 5000);
    for case in CASES {
        let expected = calibration::logits(&calibration::source(case), &prompts, Some(Kind::Float));
        // NF4 has four bits, LLM.int8() eight.
        for ((format, params, scheme), most) in FORMATS.into_iter().zip([0.5, 0.5, 0.1]) {
            let (scratch, _) = quantized(case, params);
            let out = scratch.path().join("out");
            assert_eq!(calibration::scheme_name(&out), scheme);
            let logits = calibration::logits(&out, &prompts, Some(Kind::Float));
            let mean = |tensor: &Tensor| f64::try_from(tensor.abs().mean(Kind::Double)).unwrap();
            let distance = mean(&(logits - &expected)) / mean(&expected);
            assert!(distance <= most && distance > 1e-4, "{case} {format}: {distance}");
        }
    }
}

#[test]
fn the_size_on_disk_is_the_formulas() {
    let source = Checkpoint::open(&calibration::source("llama-f32")).unwrap();
    let weights: Vec<i64> = source
        .names()
        .filter(|name| name.contains("_proj.weight"))
        .map(|name| source.shape(name).unwrap().iter().product())
        .collect();
    for (format, params, _) in FORMATS {
        let scratch = tempfile::tempdir().unwrap();
        let params = serde_json::from_str(params).unwrap();
        let facts =
            calibration::quantize(&calibration::source("llama-f32"), Path::new("none"), params, &scratch)
                .unwrap();
        // Codes and scales; then what a layer has whatever its size: tables and a text.
        let bits = match format {
            "nf4" => 4.0 + 32.0 / 64.0,
            "nf4-double" => 4.0 + 8.0 / 64.0,
            _ => 8.0 + 32.0 / 32.0,
        };
        let most = weights.iter().sum::<i64>() as f64 * bits / 8.0 + 1500.0 * weights.len() as f64;
        let bytes = facts["linear_bytes_after"].as_f64().unwrap();
        assert!(bytes <= most, "{format}: {bytes} of {most}");
    }
}

#[test]
fn what_is_stopped_and_resumed_has_the_same_bytes() {
    let source = calibration::source("llama-f32");
    for (format, params, _) in FORMATS {
        let (whole, _) = quantized("llama-f32", params);
        let pieces = tempfile::tempdir().unwrap();
        let params = serde_json::from_str(params).unwrap();
        let attempts = calibration::quantize_in_pieces(&source, Path::new("none"), &params, &pieces);
        assert!(attempts > 1);
        let read = |folder: &Path| fs_err::read(folder.join("out/model.safetensors")).unwrap();
        assert_eq!(read(whole.path()), read(pieces.path()), "{format}");
    }
}

#[test]
fn options_are_said_in_the_record_and_in_config_json() {
    let scratch = tempfile::tempdir().unwrap();
    let params = json!({"method": "bnb-int8", "threshold": 3.5});
    let source = calibration::source("qwen3-bf16");
    let facts = calibration::quantize(&source, Path::new("none"), params, &scratch).unwrap();
    assert_eq!(facts["threshold"], json!(3.5));
    let checkpoint = Checkpoint::open(&scratch.path().join("out")).unwrap();
    assert_eq!(checkpoint.quantization_config().unwrap()["llm_int8_threshold"], json!(3.5));
    let scratch = tempfile::tempdir().unwrap();
    let params = json!({"method": "bnb-nf4", "compute_dtype": "bfloat16", "double_quant": true});
    let facts = calibration::quantize(&source, Path::new("none"), params, &scratch).unwrap();
    assert_eq!((&facts["block_size"], &facts["double_quant"]), (&json!(64), &json!(true)));
    let checkpoint = Checkpoint::open(&scratch.path().join("out")).unwrap();
    assert_eq!(checkpoint.quantization_config().unwrap()["bnb_4bit_compute_dtype"], json!("bfloat16"));
}

#[test]
fn magnitudes_whose_mean_is_beyond_float32_are_refused_by_name() {
    const LARGE: &str = "model.layers.0.mlp.down_proj.weight";
    let model = calibration::source("qwen3-bf16");
    let source = tempfile::tempdir().unwrap();
    fs_err::copy(model.join("config.json"), source.path().join("config.json")).unwrap();
    let files = TensorFiles::open(&model.join("model.safetensors")).unwrap();
    let tensor = |name: &str| {
        let tensor = files.tensor(name).unwrap();
        if name == LARGE { tensor.full_like(3e38) } else { tensor }
    };
    let tensors: Vec<_> = files.names().map(|name| (name.to_owned(), tensor(name))).collect();
    save::write_tensors(&source.path().join("model.safetensors"), &tensors).unwrap();
    let quantize = |double_quant: bool| {
        let params = json!({"method": "bnb-nf4", "double_quant": double_quant});
        calibration::quantize(source.path(), Path::new("none"), params, &tempfile::tempdir().unwrap())
    };
    let error = format!("{:?}", quantize(true).unwrap_err());
    assert!(error.contains(&format!("the mean of the magnitudes of `{LARGE}`")), "{error}");
    assert!(quantize(false).is_ok());
}

/// A copy of the golden checkpoint `format` of qwen3-bf16, config.json and tensors changed.
fn changed(
    format: &str,
    config: impl FnOnce(&mut Value),
    tensors: impl Fn(&str, Tensor) -> Option<(String, Tensor)>,
) -> TempDir {
    let source = golden("qwen3-bf16").join(format);
    let out = tempfile::tempdir().unwrap();
    let mut json: Value =
        serde_json::from_str(&fs_err::read_to_string(source.join("config.json")).unwrap()).unwrap();
    config(&mut json["quantization_config"]);
    fs_err::write(out.path().join("config.json"), json.to_string()).unwrap();
    let files = TensorFiles::open(&source.join("model.safetensors")).unwrap();
    let kept: Vec<_> = files.names().filter_map(|name| tensors(name, files.tensor(name).unwrap())).collect();
    save::write_tensors(&out.path().join("model.safetensors"), &kept).unwrap();
    out
}

fn same(name: &str, tensor: Tensor) -> Option<(String, Tensor)> {
    Some((name.to_owned(), tensor))
}

/// Changes the text of every quantization state.
fn state_with(from: &'static str, to: &'static str) -> impl Fn(&str, Tensor) -> Option<(String, Tensor)> {
    move |name, tensor| {
        if !name.contains("quant_state") {
            return same(name, tensor);
        }
        let text = String::from_utf8(Vec::try_from(&tensor).unwrap()).unwrap();
        same(name, Tensor::from_slice(text.replace(from, to).as_bytes()))
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let layer = "model.layers.0.self_attn.q_proj";
    let unchanged = |_: &mut Value| {};
    for (folder, expected) in [
        (
            changed("nf4", |config| config["bnb_4bit_quant_type"] = json!("fp4"), same),
            "`quantization_config.bnb_4bit_quant_type: fp4` is not supported (known: nf4)".to_owned(),
        ),
        (
            changed("int8", |config| config["llm_int8_has_fp16_weight"] = json!(true), same),
            "`quantization_config.llm_int8_has_fp16_weight: true` is not supported".to_owned(),
        ),
        (
            changed("int8", |config| config["llm_int8_rank"] = json!(3), same),
            "`quantization_config.llm_int8_rank: 3` is not supported".to_owned(),
        ),
        (
            changed("nf4", unchanged, state_with("\"blocksize\": 64", "\"blocksize\": 48")),
            format!("`{layer}.weight.quant_state.bitsandbytes__nf4.blocksize: 48` is not supported"),
        ),
        (
            changed("nf4-double", unchanged, state_with("_blocksize\": 256", "_blocksize\": 128")),
            format!("`{layer}.weight.quant_state.bitsandbytes__nf4.nested_blocksize: 128` is not supported"),
        ),
        (
            changed("nf4", unchanged, state_with("[64, 64]", "[64, 65]")),
            "has shape [64, 65], config.json calls for [64, 64]".to_owned(),
        ),
        (
            changed("nf4", unchanged, |name, tensor| {
                let tensor = if name.ends_with("quant_map") { tensor + 0.01 } else { tensor };
                same(name, tensor)
            }),
            format!("`{layer}.weight.quant_map: another table` is not supported (known: NF4's)"),
        ),
        (
            changed("nf4", unchanged, |name, tensor| same(&name.replace("__nf4", "__fp4"), tensor)),
            format!("`{layer}.weight.quant_state.bitsandbytes__fp4.quant_type: fp4` is not supported"),
        ),
        (
            changed("int8", unchanged, |name, tensor| {
                let tensor = if name.ends_with("weight_format") { tensor + 1_i64 } else { tensor };
                same(name, tensor)
            }),
            format!("`{layer}.weight_format: [1]` is not supported"),
        ),
        (
            changed("nf4", unchanged, |name, tensor| {
                if name.ends_with("q_proj.weight.absmax") { None } else { same(name, tensor) }
            }),
            format!("tensor `{layer}.weight.absmax` is missing"),
        ),
        (
            // The list says that the layer is in floating point, and it is not.
            changed("nf4", |config| config["llm_int8_skip_modules"] = json!(["q_proj"]), same),
            format!("tensor `{layer}.weight` has shape [2048, 1], config.json calls for [64, 64]"),
        ),
    ] {
        let error = calibration::load_error(folder.path());
        assert!(error.contains(&expected), "{error}\n{expected}");
    }
}

#[test]
fn weights_that_the_method_has_no_codes_for_are_refused_by_name() {
    let source = calibration::source("llama-f32");
    let copy = |change: &dyn Fn(Tensor) -> Tensor| {
        let out = tempfile::tempdir().unwrap();
        fs_err::copy(source.join("config.json"), out.path().join("config.json")).unwrap();
        let files = TensorFiles::open(&source.join("model.safetensors")).unwrap();
        let changed = |name: &str, tensor: Tensor| {
            if name.ends_with("layers.1.mlp.up_proj.weight") { change(tensor) } else { tensor }
        };
        let tensors: Vec<_> =
            files.names().map(|name| (name.to_owned(), changed(name, files.tensor(name).unwrap()))).collect();
        save::write_tensors(&out.path().join("model.safetensors"), &tensors).unwrap();
        out
    };
    let refused = |folder: &TempDir, method: &str| {
        let scratch = tempfile::tempdir().unwrap();
        let params = json!({ "method": method });
        calibration::message(calibration::quantize(folder.path(), Path::new("none"), params, &scratch))
    };
    let name = "tensor `model.layers.1.mlp.up_proj.weight`";
    let large = copy(&|tensor| tensor * 1e6);
    let message = refused(&large, "bnb-int8");
    assert!(message.starts_with(&format!("{name} has values beyond the range of float16: ")), "{message}");
    let nan = copy(&|tensor| tensor / 0.0);
    for method in ["bnb-int8", "bnb-nf4"] {
        let message = refused(&nan, method);
        assert!(message.starts_with(&format!("{name} has values that are not finite: ")), "{message}");
    }
    let double = copy(&|tensor| tensor.to_kind(Kind::Double));
    let expected = format!("{name} is of type Double, which `bnb-nf4` does not quantize");
    assert_eq!(refused(&double, "bnb-nf4"), expected);
}
