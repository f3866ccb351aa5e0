//! int8 embeddings and output projections, of every format that has a place for them. tests/parity/outside.py holds
//! them to llm-compressor and transformers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calibration;
mod greedy;

use std::path::{Path, PathBuf};

use greedy::greedy;
use qpipe_kernels::Isa;
use qpipe_worker::model::{
    Attention, BlockRunner, Checkpoint, Decoder, Embedding, LoadOptions, Products, save,
};
use qpipe_worker::quant::Rounding;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// Not tied, f32, and tied, bf16.
const UNTIED: &str = "llama-f32";
const TIED: &str = "qwen3-bf16";
const VOCABULARY: i64 = 32;
const HIDDEN: i64 = 64;
/// Mean distance of logits from those without int8 matrices outside the blocks, relative to their mean magnitude. The
/// models are random and very small, and activations that fall to other codes move them by up to 0.07; a scale in the
/// wrong place makes it 1 and more.
const DISTANCE: f64 = 0.15;
const INFERENCE: LoadOptions =
    LoadOptions { device: Device::Cpu, dtype: None, trainable: false, products: Products::LIBTORCH };

/// The options of each method in each of its formats that has a place for int8 matrices outside the blocks.
fn methods() -> Vec<Value> {
    vec![
        json!({"method": "rtn", "scheme": "W8A8"}),
        json!({"method": "rtn", "scheme": "W4A16", "group_size": 32}),
        json!({"method": "int8-dynamic", "convention": "torchao"}),
        json!({"method": "smoothquant", "scheme": "W8A8", "activations": "static"}),
        json!({"method": "smoothquant", "scheme": "W4A8", "group_size": 32}),
        json!({"method": "smoothquant", "scheme": "W4A8", "group_size": 32, "format": "int-quantized"}),
        json!({"method": "awq", "group_size": 32, "symmetric": true}),
        json!({"method": "awq", "group_size": 32, "format": "pack-quantized"}),
    ]
}

fn with(params: &Value, more: &Value) -> Value {
    let mut params = params.clone();
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

/// The golden source `case`, and a calibration of it.
struct Source {
    folder: PathBuf,
    calibration: TempDir,
}

impl Source {
    fn new(case: &str) -> Self {
        let source = Self { folder: calibration::source(case), calibration: tempfile::tempdir().unwrap() };
        calibration::write(&source.folder, source.calibration.path());
        source
    }

    fn quantize(&self, params: Value) -> (TempDir, Value) {
        let scratch = tempfile::tempdir().unwrap();
        let needs = ["smoothquant", "awq"].map(Value::from).contains(&params["method"]);
        let facts = if needs {
            calibration::quantize(&self.folder, self.calibration.path(), params, &scratch)
        } else {
            calibration::quantize_without(&self.folder, params, &scratch)
        };
        (scratch, json!(facts.unwrap()))
    }
}

fn out(scratch: &TempDir) -> PathBuf {
    scratch.path().join("out")
}

fn load(folder: &Path) -> Decoder {
    Decoder::load(&Checkpoint::open(folder).unwrap(), &INFERENCE).unwrap()
}

fn distance(one: &Tensor, other: &Tensor) -> f64 {
    let mean = |tensor: &Tensor| tensor.abs().mean(Kind::Double).double_value(&[]);
    mean(&(one - other)) / mean(other)
}

/// Bytes of all tensors in the folder.
fn bytes_on_disk(folder: &Path) -> i64 {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let bytes = |name: &str| {
        let elements: i64 = checkpoint.shape(name).unwrap().iter().product();
        elements * checkpoint.kind(name).unwrap().elt_size_in_bytes() as i64
    };
    checkpoint.names().map(bytes).sum()
}

#[test]
fn untied_matrices_are_stored_each_by_itself_and_take_what_the_formula_says() {
    let source = Source::new(UNTIED);
    let prompts = calibration::prompts(4, 11);
    let (weights, float) = (VOCABULARY * HIDDEN, 4);
    for params in methods() {
        let (kept, _) = source.quantize(params.clone());
        let expected = calibration::logits(&out(&kept), &prompts, None);
        let (disk, memory) = (bytes_on_disk(&out(&kept)), load(&out(&kept)).weight_bytes() as i64);
        let scheme = calibration::scheme_name(&out(&kept));
        let is_ours = params["method"] == "smoothquant" && scheme == "W4A8 g32";
        for (options, count) in [
            (json!({"lm_head": "int8"}), 1),
            (json!({"embeddings": "int8"}), 1),
            (json!({"lm_head": "int8", "embeddings": "int8"}), 2),
        ] {
            let (scratch, facts) = source.quantize(with(&params, &options));
            let folder = out(&scratch);
            for key in ["lm_head", "embeddings"] {
                assert_eq!(facts.get(key), options.get(key), "{params} {options}");
            }
            let logits = calibration::logits(&folder, &prompts, None);
            let moved = distance(&logits, &expected);
            assert!(moved > 0.0 && moved < DISTANCE, "{params} {options}: {moved}");

            // A byte a weight and a number a row in place of four bytes a weight. What is packed says its shape.
            let saved = count * (weights * float - weights - VOCABULARY * float);
            let shape = if options.get("lm_head").is_some() && !is_ours { 16 } else { 0 };
            assert_eq!(bytes_on_disk(&folder), disk - saved + shape, "{params} {options}");
            let decoder = load(&folder);
            assert_eq!(decoder.weight_bytes() as i64, memory - saved, "{params} {options}");
            assert_eq!(decoder.scheme_name(), scheme);
        }
    }
}

#[test]
fn a_tied_embedding_is_one_matrix_for_both() {
    let source = Source::new(TIED);
    let prompts = calibration::prompts(4, 12);
    let (weights, float) = (VOCABULARY * HIDDEN, 2);
    for params in methods() {
        let (kept, _) = source.quantize(params.clone());
        let expected = calibration::logits(&out(&kept), &prompts, None);
        let (disk, memory) = (bytes_on_disk(&out(&kept)), load(&out(&kept)).weight_bytes() as i64);
        let is_ours = calibration::scheme_name(&out(&kept)) == "W4A8 g32";
        for options in [json!({"embeddings": "int8"}), json!({"embeddings": "int8", "lm_head": "int8"})] {
            let (scratch, _) = source.quantize(with(&params, &options));
            let folder = out(&scratch);
            let checkpoint = Checkpoint::open(&folder).unwrap();
            assert!(!checkpoint.has("lm_head.weight") && checkpoint.config.tie_word_embeddings);
            let moved = distance(&calibration::logits(&folder, &prompts, None), &expected);
            assert!(moved > 0.0 && moved < DISTANCE, "{params}: {moved}");

            let saved = weights * float - weights - VOCABULARY * float;
            // The scales once more, for transformers' output projection.
            let scales = if is_ours { 0 } else { VOCABULARY * float };
            assert_eq!(bytes_on_disk(&folder), disk - saved + scales, "{params}");
            assert_eq!(load(&folder).weight_bytes() as i64, memory - saved, "{params}");
        }
    }
}

#[test]
fn lookup_and_projection_are_those_of_the_rounded_matrix() {
    for (case, options) in
        [(UNTIED, json!({"lm_head": "int8", "embeddings": "int8"})), (TIED, json!({"embeddings": "int8"}))]
    {
        let source = Source::new(case);
        let original = Checkpoint::open(&source.folder).unwrap();
        let value = |name: &str| {
            let rounded = Rounding::Channel8.round(name, &original.tensor(name).unwrap()).unwrap();
            rounded.codes.to_kind(rounded.scale.kind()) * rounded.scale
        };
        let embedding = value("model.embed_tokens.weight");
        let head = if case == TIED { embedding.shallow_clone() } else { value("lm_head.weight") };
        let kind = embedding.kind();

        let params = with(&json!({"method": "rtn", "scheme": "W4A16", "group_size": 32}), &options);
        let (scratch, _) = source.quantize(params);
        let checkpoint = Checkpoint::open(&out(&scratch)).unwrap();
        let ids = Tensor::from_slice(&[3_i64, 31, 0, 3]).view([2, 2]);
        let rows = Embedding::load(&checkpoint, &INFERENCE).unwrap().look_up(&ids).unwrap();
        assert!(rows.equal(&Tensor::embedding(&embedding, &ids, -1, false, false)), "{case}");
        let runner = BlockRunner::new(&checkpoint, INFERENCE).unwrap();
        assert!(runner.embed(&ids).unwrap().equal(&rows), "{case}");

        let decoder = Decoder::load(&checkpoint, &INFERENCE).unwrap();
        // Few rows and many.
        for count in [1, 40] {
            let hidden = Tensor::randn([count, HIDDEN], (kind, Device::Cpu));
            let expected = hidden.to_kind(Kind::Float).matmul(&head.to_kind(Kind::Float).tr());
            let logits = decoder.logits(&hidden);
            assert_eq!(logits.kind(), kind);
            let difference = (logits.to_kind(Kind::Float) - &expected).abs().max() / expected.abs().max();
            let allowed = if kind == Kind::BFloat16 { 1e-2 } else { 1e-6 };
            assert!(difference.double_value(&[]) < allowed, "{case} {count}");
        }
    }
}

#[test]
fn decoding_through_a_cache_gives_what_one_pass_gives() {
    for (case, options) in
        [(UNTIED, json!({"lm_head": "int8", "embeddings": "int8"})), (TIED, json!({"embeddings": "int8"}))]
    {
        let (scratch, _) =
            Source::new(case).quantize(with(&json!({"method": "rtn", "scheme": "W8A8"}), &options));
        let decoder = Decoder::load(
            &Checkpoint::open(&out(&scratch)).unwrap(),
            &LoadOptions { dtype: Some(Kind::Float), ..INFERENCE },
        )
        .unwrap();
        let tokens = greedy(&decoder, &[1, 2, 3], 5, &[]);
        let mut ids = vec![1, 2, 3];
        for token in tokens {
            let input = Tensor::from_slice(&ids).unsqueeze(0);
            let positions = Tensor::arange(ids.len() as i64, (Kind::Int64, Device::Cpu)).unsqueeze(0);
            let hidden = decoder.hidden(&input, &positions, &Attention::Causal, None);
            let last = decoder.logits(&hidden.select(1, ids.len() as i64 - 1));
            assert_eq!(last.argmax(-1, false).int64_value(&[0]), token, "{case}");
            ids.push(token);
        }
    }
}

#[test]
fn the_output_projection_of_a_tied_model_alone_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let params = json!({"method": "rtn", "scheme": "W8A8", "lm_head": "int8"});
    let result = calibration::quantize_without(&calibration::source(TIED), params, &scratch);
    assert_eq!(
        calibration::message(result),
        "`lm_head: int8`: the model's output projection is its embedding (`tie_word_embeddings`)"
    );
    assert!(!out(&scratch).exists());
}

#[test]
fn an_int8_embedding_is_not_trained() {
    let (scratch, _) =
        Source::new(TIED).quantize(json!({"method": "rtn", "scheme": "W8A8", "embeddings": "int8"}));
    let checkpoint = Checkpoint::open(&out(&scratch)).unwrap();
    let error = Embedding::load(&checkpoint, &LoadOptions { trainable: true, ..INFERENCE }).unwrap_err();
    assert!(error.to_string().contains("`model.embed_tokens` is quantized (W8A16)"), "{error}");
}

#[test]
fn without_a_dtype_in_config_json_the_norms_tell_it() {
    let (scratch, _) =
        Source::new(TIED).quantize(json!({"method": "rtn", "scheme": "W8A8", "embeddings": "int8"}));
    let file = out(&scratch).join("config.json");
    let mut config: Value = serde_json::from_slice(&fs_err::read(&file).unwrap()).unwrap();
    for key in ["dtype", "torch_dtype"] {
        config.as_object_mut().unwrap().remove(key);
    }
    fs_err::write(&file, config.to_string()).unwrap();
    assert_eq!(load(&out(&scratch)).kind(), Kind::BFloat16);
}

#[test]
fn a_w8a8_output_projection_as_llm_compressor_writes_it_without_ignoring_any_layer_is_read() {
    let source = Source::new(UNTIED);
    let (scratch, _) = source.quantize(json!({"method": "rtn", "scheme": "W8A8"}));
    let (folder, prompts) = (out(&scratch), calibration::prompts(4, 13));
    let expected = calibration::logits(&folder, &prompts, None);
    let memory = load(&folder).weight_bytes() as i64;

    let checkpoint = Checkpoint::open(&folder).unwrap();
    let mut tensors = Vec::new();
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name).unwrap();
        if name == "lm_head.weight" {
            let rounded = Rounding::Channel8.round(name, &tensor).unwrap();
            tensors.push((name.to_owned(), rounded.codes));
            tensors.push(("lm_head.weight_scale".to_owned(), rounded.scale));
        } else {
            tensors.push((name.to_owned(), tensor.copy()));
        }
    }
    drop(checkpoint);
    fs_err::remove_file(folder.join("model.safetensors")).unwrap();
    save::write_tensors(&folder.join("model.safetensors"), &tensors).unwrap();
    let file = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs_err::read(&file).unwrap()).unwrap();
    config["quantization_config"]["ignore"] = json!([]);
    fs_err::write(&file, config.to_string()).unwrap();

    let moved = distance(&calibration::logits(&folder, &prompts, None), &expected);
    assert!(moved > 0.0 && moved < DISTANCE, "{moved}");
    // A scale of each output channel, and with VNNI the sum of its codes.
    let beside = if Isa::here() >= Isa::Avx512Vnni { 2 * VOCABULARY * 4 } else { VOCABULARY * 4 };
    let saved = VOCABULARY * HIDDEN * 3 - beside;
    assert_eq!(load(&folder).weight_bytes() as i64, memory - saved);
}

#[test]
fn what_is_stopped_and_resumed_has_the_same_bytes() {
    let source = Source::new(UNTIED);
    let params = with(
        &json!({"method": "awq", "group_size": 32, "symmetric": true}),
        &json!({"lm_head": "int8", "embeddings": "int8"}),
    );
    let (whole, _) = source.quantize(params.clone());
    let pieces = tempfile::tempdir().unwrap();
    let attempts =
        calibration::quantize_in_pieces(&source.folder, source.calibration.path(), &params, &pieces);
    assert!(attempts > 1);
    let read = |scratch: &TempDir| fs_err::read(out(scratch).join("model.safetensors")).unwrap();
    assert_eq!(read(&whole), read(&pieces));
}
