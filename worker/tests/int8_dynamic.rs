//! `quantize` with `method: int8-dynamic` against torchao, bit by bit, and against `method: rtn`. The golden files, with
//! their provenance, are made by tests/parity/int8_dynamic.py, which also compares larger models.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calibration;

use std::path::Path;

use qpipe_kernels::{Codes, QuantizedWeight, torchao};
use qpipe_worker::model::TensorFiles;
use qpipe_worker::quant::int8_dynamic::round_as_torchao;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const TYPES: [(&str, Kind); 3] =
    [("float32", Kind::Float), ("bfloat16", Kind::BFloat16), ("float16", Kind::Half)];

fn golden(name: &str) -> impl Fn(&str) -> Tensor {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/int8_dynamic"));
    let file = TensorFiles::open(&folder.join(format!("{name}.safetensors"))).unwrap();
    move |tensor| file.tensor(tensor).unwrap()
}

fn quantize(case: &str, params: Value) -> (TempDir, Value) {
    let scratch = tempfile::tempdir().unwrap();
    let facts = calibration::quantize_without(&calibration::source(case), params, &scratch).unwrap();
    (scratch, json!(facts))
}

#[test]
fn codes_and_scales_equal_torchaos() {
    for (name, kind) in TYPES {
        let golden = golden(name);
        let rounded = round_as_torchao(&golden("weight")).unwrap();
        assert!(rounded.codes.equal(&golden("codes")), "{name}");
        // Stored in the weights' type, without loss.
        assert_eq!(rounded.scale.kind(), kind);
        assert!(rounded.scale.to_kind(Kind::Float).equal(&golden("scale")), "{name}");
    }
}

#[test]
fn activations_and_outputs_equal_torchaos() {
    for (name, kind) in TYPES {
        let golden = golden(name);
        let (weight, x) = (golden("weight"), golden("x"));
        let scale = torchao::scales(&x).unwrap();
        assert!(scale.equal(&golden("x_scale")), "{name}");
        assert!(torchao::codes(&x, &scale).unwrap().equal(&golden("x_codes")), "{name}");

        let rounded = round_as_torchao(&weight).unwrap();
        let codes = Codes::Int8Torchao { weight: rounded.codes, scale: rounded.scale };
        let (rows, columns) = weight.size2().unwrap();
        let weight = QuantizedWeight::new(codes, Some(golden("bias")), rows, columns).unwrap();
        let y = qpipe_kernels::prepare(&weight, Device::Cpu, kind).unwrap().forward(&x);
        assert!(y.equal(&golden("y")), "{name}");
    }
}

#[test]
fn llmc_is_rtn_w8a8_byte_by_byte() {
    for case in ["llama-f32", "qwen3-bf16"] {
        let (ours, facts) = quantize(case, json!({"method": "int8-dynamic"}));
        let (rtn, _) = quantize(case, json!({"method": "rtn", "scheme": "W8A8"}));
        for file in ["model.safetensors", "config.json"] {
            let read = |folder: &TempDir| fs_err::read(folder.path().join("out").join(file)).unwrap();
            assert_eq!(read(&ours), read(&rtn), "{case} {file}");
        }
        assert_eq!(facts["convention"], "llmc");
        assert_eq!(calibration::scheme_name(&ours.path().join("out")), "W8A8");
    }
}

#[test]
fn a_checkpoint_says_that_its_activations_are_torchaos() {
    let prompts = calibration::prompts(4, 77);
    for case in ["llama-f32", "qwen3-bf16"] {
        let (ours, facts) = quantize(case, json!({"method": "int8-dynamic", "convention": "torchao"}));
        let out = ours.path().join("out");
        assert_eq!(facts["convention"], "torchao");
        assert!(facts["activations"].as_str().unwrap().contains("reciprocal"));
        assert_eq!(calibration::scheme_name(&out), "W8A8 torchao");
        let config: Value = serde_json::from_slice(&fs_err::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["quantization_config"]["qpipe"], json!({"activations": "torchao"}));

        let logits = calibration::logits(&out, &prompts, None);
        let unquantized = calibration::logits(&calibration::source(case), &prompts, None);
        let mean = |tensor: Tensor| tensor.abs().mean(Kind::Double).double_value(&[]);
        let distance = mean(&logits - &unquantized) / mean(unquantized.shallow_clone());
        assert!(distance > 0.0 && distance < 0.1, "{case}: {distance}");

        // Without the key the same codes are multiplied with activations of compressed-tensors' rule.
        let mut plain = config.clone();
        plain["quantization_config"].as_object_mut().unwrap().remove("qpipe");
        fs_err::write(out.join("config.json"), plain.to_string()).unwrap();
        assert_eq!(calibration::scheme_name(&out), "W8A8");
        assert!(!calibration::logits(&out, &prompts, None).equal(&logits), "{case}");
    }
}
