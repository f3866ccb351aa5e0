//! `quantize` with `method: gptq`: codes and scales against llm-compressor's and GPTQModel's, and its checkpoints as they
//! are loaded. The golden files, with their provenance, are made by tests/parity/gptq.py, which also compares with the
//! packages side by side, to the bit.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calibration;

use std::path::Path;

use qpipe_nodes::kinds::{Gptq, Method};
use qpipe_worker::model::{TensorFiles, save};
use qpipe_worker::quant::gptq::quantize_weight;
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

const CASES: [&str; 2] = ["llama-f32", "qwen3-bf16"];
/// Share of the codes that may differ from a reference's. On one machine none do; LAPACK sums in another order on
/// another processor.
const MOST_CODES: f64 = 0.005;
/// Share of the scales and zero points that may differ, for the same reason: those of a group follow the errors of the
/// groups before it.
const MOST_SCALES: f64 = 0.02;
/// Mean distance of logits from the unquantized model's, relative to their own mean magnitude.
const DISTANCE_OF_4_BITS: f64 = 0.5;
const DISTANCE_OF_8_BITS: f64 = 0.06;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<GoldenCase>,
}

#[derive(Deserialize)]
struct GoldenCase {
    weight: String,
    options: Value,
}

fn params(options: Value) -> Value {
    let mut params = json!({"method": "gptq", "group_size": 32});
    params.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    params
}

fn mean_magnitude(tensor: &Tensor) -> f64 {
    tensor.abs().mean(Kind::Double).double_value(&[])
}

#[test]
fn codes_and_scales_are_those_of_the_references() {
    let _no_gradients = tch::no_grad_guard();
    tch::set_num_threads(1);
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/gptq"));
    for profile in ["llmc", "gptqmodel"] {
        let tensors = TensorFiles::open(&folder.join(format!("{profile}.safetensors"))).unwrap();
        let text = fs_err::read_to_string(folder.join(format!("{profile}.json"))).unwrap();
        let golden: Golden = serde_json::from_str(&text).unwrap();
        assert!(golden.cases.len() > 20);
        let x = tensors.tensor("x").unwrap().to_kind(Kind::Float);
        let hessian = x.tr().matmul(&x) * (2.0 / 64.0);
        for (number, case) in golden.cases.iter().enumerate() {
            let options: Gptq = serde_json::from_value(case.options.clone()).unwrap();
            let options = options.completed();
            let expected = |part: &str| tensors.tensor(&format!("case-{number:02}.{part}")).unwrap();
            let weight = tensors.tensor(&format!("{}.weight", case.weight)).unwrap();
            let solved = quantize_weight(&weight, &hessian, &options).unwrap();
            let share = |differs: Tensor| differs.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
            let differs = share(solved.codes.ne_tensor(&expected("codes")));
            assert!(differs <= MOST_CODES, "{profile} {}: {differs}", case.options);
            let differs = share((solved.scale / expected("scale") - 1.0).abs().gt(1e-5));
            assert!(differs <= MOST_SCALES, "{profile} {}: {differs}", case.options);
            if let Some(zero) = solved.zero {
                let differs = share(zero.ne_tensor(&expected("zero")));
                assert!(differs <= MOST_SCALES, "{profile} {}: {differs}", case.options);
            }
            let scattered = tensors.has(&format!("case-{number:02}.group_of"));
            assert_eq!(scattered, solved.group_of.is_some());
            if let Some(group_of) = solved.group_of {
                assert!(group_of.equal(&expected("group_of")), "{profile} {}", case.options);
            }
        }
    }
}

#[test]
fn every_format_is_loaded_and_is_near_the_unquantized_model() {
    let prompts = calibration::prompts(6, 5000);
    for case in CASES {
        let source = calibration::source(case);
        let measured = tempfile::tempdir().unwrap();
        calibration::write(&source, measured.path());
        let expected = calibration::logits(&source, &prompts, Some(Kind::Float));
        for (options, scheme, most) in [
            (json!({}), "W4A16 g32", DISTANCE_OF_4_BITS),
            (json!({"symmetric": false}), "W4A16 g32 asym", DISTANCE_OF_4_BITS),
            (json!({"format": "gptq"}), "W4A16 g32", DISTANCE_OF_4_BITS),
            (json!({"format": "gptq_v2", "symmetric": false}), "W4A16 g32 asym", DISTANCE_OF_4_BITS),
            (json!({"profile": "gptqmodel"}), "W4A16 g32", DISTANCE_OF_4_BITS),
            (json!({"profile": "gptqmodel", "order": "desc_act"}), "W4A16 g32", DISTANCE_OF_4_BITS),
            (json!({"bits": 8, "group_size": -1}), "W8A16", DISTANCE_OF_8_BITS),
            (json!({"bits": 8, "format": "gptq"}), "W8A16", DISTANCE_OF_8_BITS),
            (json!({"bits": 8, "symmetric": false}), "W8A16 g32 asym", DISTANCE_OF_8_BITS),
            (json!({"bits": 3, "format": "gptq"}), "W3A16 g32", 1.0),
            (json!({"bits": 3, "symmetric": false}), "W3A16 g32 asym", 1.0),
            (json!({"scheme": "W8A8", "group_size": -1}), "W8A8", DISTANCE_OF_8_BITS),
            (json!({"propagate": "quantized"}), "W4A16 g32", DISTANCE_OF_4_BITS),
            (json!({"propagate": "quantized", "profile": "gptqmodel"}), "W4A16 g32", DISTANCE_OF_4_BITS),
        ] {
            let scratch = tempfile::tempdir().unwrap();
            calibration::quantize(&source, measured.path(), params(options.clone()), &scratch).unwrap();
            let out = scratch.path().join("out");
            let name = calibration::scheme_name(&out);
            assert!(name.starts_with(scheme), "{case} {options}: {name}");
            let logits = calibration::logits(&out, &prompts, Some(Kind::Float));
            let distance = mean_magnitude(&(logits - &expected)) / mean_magnitude(&expected);
            assert!(distance <= most, "{case} {options}: {distance}");
            assert!(distance > 1e-4, "{case} {options} is not quantized at all");
        }
    }
}

#[test]
fn formats_and_orders_of_one_rounding_stand_for_the_same_weights() {
    // The same codes in every format; in float32 and with scales of float16 the products differ little.
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let prompts = calibration::prompts(4, 900);
    let logits = |options: Value| {
        let scratch = tempfile::tempdir().unwrap();
        calibration::quantize(&source, measured.path(), params(options), &scratch).unwrap();
        calibration::logits(&scratch.path().join("out"), &prompts, Some(Kind::Float))
    };
    for options in [
        json!({"profile": "gptqmodel", "bits": 4}),
        json!({"profile": "gptqmodel", "bits": 3, "symmetric": false}),
        json!({"profile": "gptqmodel", "bits": 2, "order": "none", "symmetric": false}),
        json!({"profile": "gptqmodel", "bits": 8, "order": "desc_act", "static_groups": true}),
    ] {
        let with = |format: &str| {
            let mut options = options.clone();
            options["format"] = json!(format);
            logits(options)
        };
        let (own, packed) = (with("gptq_v2"), with("pack-quantized"));
        let distance = (&own - &packed).abs().max().double_value(&[]) / packed.abs().max().double_value(&[]);
        assert!(distance < 5e-3, "{options}: {distance}");
    }
}

#[test]
fn gptq_is_nearer_to_the_model_than_rounding_to_nearest() {
    // On the inputs it was calibrated on, which is what it promises.
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let prompts = calibration::prompts(12, 1);
    let expected = calibration::logits(&source, &prompts, Some(Kind::Float));
    let distance = |options: Value| {
        let scratch = tempfile::tempdir().unwrap();
        calibration::quantize(&source, measured.path(), options, &scratch).unwrap();
        let logits = calibration::logits(&scratch.path().join("out"), &prompts, Some(Kind::Float));
        mean_magnitude(&(logits - &expected))
    };
    let nearest = distance(json!({"method": "rtn", "scheme": "W4A16", "group_size": 32}));
    for options in [json!({}), json!({"propagate": "quantized"}), json!({"profile": "gptqmodel"})] {
        let found = distance(params(options.clone()));
        assert!(found < 0.8 * nearest, "{options}: {found} {nearest}");
    }
}

#[test]
fn what_was_done_is_said_of_each_layer() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    for propagate in ["none", "quantized"] {
        let scratch = tempfile::tempdir().unwrap();
        let options = params(json!({"propagate": propagate}));
        let facts = calibration::quantize(&source, measured.path(), options, &scratch).unwrap();
        let notes = facts["notes"].as_object().unwrap();
        assert_eq!(notes.len(), 2 * 7);
        for note in notes.values() {
            assert_eq!(note["damping"], 0.01);
            assert_eq!(note["tokens"], 12 * 24);
            assert!(note["loss"].as_f64().unwrap() > 0.0);
            assert!(note.get("fallback").is_none());
        }
    }
}

#[test]
fn what_is_stopped_and_resumed_has_the_same_bytes() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    for options in [
        json!({}),
        json!({"propagate": "quantized"}),
        json!({"propagate": "quantized", "profile": "gptqmodel", "order": "desc_act"}),
    ] {
        let whole = tempfile::tempdir().unwrap();
        calibration::quantize(&source, measured.path(), params(options.clone()), &whole).unwrap();
        let pieces = tempfile::tempdir().unwrap();
        let options = params(options);
        let attempts = calibration::quantize_in_pieces(&source, measured.path(), &options, &pieces);
        assert!(attempts > 1);
        let read = |folder: &Path| fs_err::read(folder.join("out/model.safetensors")).unwrap();
        assert_eq!(read(whole.path()), read(pieces.path()), "{options}");
    }
}

#[test]
fn propagation_needs_no_more_than_the_samples() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let quantized = || {
        let scratch = tempfile::tempdir().unwrap();
        let options = params(json!({"propagate": "quantized"}));
        calibration::quantize(&source, measured.path(), options, &scratch).unwrap();
        fs_err::read(scratch.path().join("out/model.safetensors")).unwrap()
    };
    let expected = quantized();
    let file = measured.path().join("statistics.json");
    let mut summary: Value = serde_json::from_slice(&fs_err::read(&file).unwrap()).unwrap();
    summary["statistics"] = json!("samples");
    summary["inputs"] = json!([]);
    fs_err::write(&file, summary.to_string()).unwrap();
    assert!(quantized() == expected, "the same bytes");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let source = calibration::source("qwen3-bf16");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let scratch = tempfile::tempdir().unwrap();
    let result =
        calibration::quantize(&source, measured.path(), params(json!({"group_size": 128})), &scratch);
    let expected = "tensor `model.layers.0.self_attn.q_proj.weight` has 64 input channels, which are not a multiple of \
                    the group size 128";
    assert_eq!(calibration::message(result), expected);

    let options = params(json!({"format": "gptq"}));
    calibration::quantize(&source, measured.path(), options, &scratch).unwrap();
    let file = scratch.path().join("out/config.json");
    let text = fs_err::read_to_string(&file).unwrap();
    assert!(text.contains("\"checkpoint_format\": \"gptq\""));
    fs_err::write(
        &file,
        text.replace("\"checkpoint_format\": \"gptq\"", "\"checkpoint_format\": \"marlin\""),
    )
    .unwrap();
    let error = calibration::load_error(&scratch.path().join("out"));
    assert!(
        error.contains(
            "`quantization_config.checkpoint_format: marlin` is not supported (known: gptq, gptq_v2)"
        ),
        "{error}"
    );
}

/// The golden source `case` with the tensors of `change` replaced.
fn changed(case: &str, change: impl Fn(&str, Tensor) -> Tensor) -> tempfile::TempDir {
    let source = calibration::source(case);
    let out = tempfile::tempdir().unwrap();
    fs_err::copy(source.join("config.json"), out.path().join("config.json")).unwrap();
    let files = TensorFiles::open(&source.join("model.safetensors")).unwrap();
    let tensors: Vec<_> =
        files.names().map(|name| (name.to_owned(), change(name, files.tensor(name).unwrap()))).collect();
    save::write_tensors(&out.path().join("model.safetensors"), &tensors).unwrap();
    out
}

#[test]
fn scales_that_float16_cannot_hold_are_refused_by_name() {
    let source = changed("llama-f32", |name, tensor| {
        if name.ends_with("layers.1.mlp.up_proj.weight") { tensor * 1e8 } else { tensor }
    });
    let measured = tempfile::tempdir().unwrap();
    calibration::write(source.path(), measured.path());
    for options in [params(json!({"format": "gptq"})), json!({"method": "awq", "group_size": 32})] {
        let scratch = tempfile::tempdir().unwrap();
        let message =
            calibration::message(calibration::quantize(source.path(), measured.path(), options, &scratch));
        let expected = "the scales of `model.layers.1.mlp.up_proj.weight` are beyond the range of float16";
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_tensor_outside_the_blocks_that_is_not_finite_is_refused_by_name() {
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let source = changed("llama-f32", |found, tensor| {
            if found == name {
                let _ = tensor.view([-1]).narrow(0, 3, 1).fill_(f64::NAN);
            }
            tensor
        });
        for options in [json!({"method": "rtn", "scheme": "W8A8"}), json!({"method": "bnb-nf4"})] {
            let scratch = tempfile::tempdir().unwrap();
            let result = calibration::quantize_without(source.path(), options, &scratch);
            let expected = format!("tensor `{name}` has values that are not finite: 1");
            assert_eq!(calibration::message(result), expected);
        }
    }
}

#[test]
fn damping_that_was_raised_is_said() {
    let source = calibration::source("llama-f32");
    let measured = tempfile::tempdir().unwrap();
    calibration::write(&source, measured.path());
    let scratch = tempfile::tempdir().unwrap();
    let facts =
        calibration::quantize(&source, measured.path(), params(json!({"damping": 0.0})), &scratch).unwrap();
    let notes = facts["notes"].as_object().unwrap();
    let raised = notes.values().filter(|note| note["damping"].as_f64().unwrap() > 0.0).count();
    match facts.get("damping_raised") {
        Some(words) => assert_eq!(words, &json!(format!("to 0.01 in {raised} of 14 layers"))),
        None => assert_eq!(raised, 0),
    }
    assert_eq!(facts["activations"], "as they are");
}
