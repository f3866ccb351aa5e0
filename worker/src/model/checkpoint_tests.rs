//! Tests of `checkpoint.rs`: what is read, without copies where possible, and what is refused.

use std::path::PathBuf;

use fs_err as fs;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::model::{Decoder, LoadOptions};

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/logits")).join(name)
}

/// A writable copy of a golden checkpoint.
fn copy_of(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn load(folder: &Path) -> Result<Decoder, ModelError> {
    Decoder::load(&Checkpoint::open(folder)?, &LoadOptions::inference(Device::Cpu, None))
}

fn message(folder: &Path) -> String {
    load(folder).map(|_| ()).unwrap_err().to_string()
}

fn patch_config(folder: &Path, changes: Value) {
    crate::model::save::write_config(&folder.join("config.json"), folder, Some(&changes)).unwrap();
}

/// A safetensors file with this header and this many zero bytes of data.
fn write_file(path: &Path, header: &Value, data: usize) {
    let text = header.to_string();
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    fs::write(path, bytes).unwrap();
}

#[test]
fn weights_are_not_copied_unless_asked() {
    let checkpoint = Checkpoint::open(&golden("llama-tied")).unwrap();
    let source = checkpoint.tensor(crate::model::decoder::EMBEDDING).unwrap().data_ptr();
    let pointer = |options: &LoadOptions| {
        let (_, embedding) = Decoder::load(&checkpoint, options).unwrap().named_parameters().swap_remove(0);
        (embedding.data_ptr(), embedding.requires_grad(), embedding.is_leaf())
    };
    let inference = LoadOptions::inference(Device::Cpu, None);
    assert_eq!(pointer(&inference), (source, false, true));
    let (address, requires_grad, is_leaf) = pointer(&LoadOptions { trainable: true, ..inference });
    assert!(address != source && requires_grad && is_leaf);
}

#[test]
fn a_cut_file_names_the_tensor() {
    let folder = copy_of("llama-tied");
    let file = folder.path().join(WEIGHTS_FILE);
    let size = fs::metadata(&file).unwrap().len();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(size - 10).unwrap();
    let text = message(folder.path());
    assert!(text.contains("model.safetensors: the file has"), "{text}");
    assert!(text.contains("the first tensor affected is `model.norm.weight`"), "{text}");

    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(100).unwrap();
    assert!(message(folder.path()).contains("not a safetensors file: it announces a header of"));
    fs::write(&file, b"<html>").unwrap();
    assert!(message(folder.path()).contains("not a safetensors file: it has 6 bytes"));
    fs::write(&file, b"\x04\0\0\0\0\0\0\0oops").unwrap();
    assert!(message(folder.path()).contains("model.safetensors: not a safetensors file: "));
}

#[test]
fn config_and_tensors_must_agree() {
    let folder = copy_of("llama-tied");
    patch_config(folder.path(), json!({ "vocab_size": 65 }));
    let text = message(folder.path());
    assert!(
        text.contains("`model.embed_tokens.weight` has shape [64, 32], config.json calls for [65, 32]"),
        "{text}"
    );

    patch_config(folder.path(), json!({ "vocab_size": 64, "num_hidden_layers": 3 }));
    let text = message(folder.path());
    assert!(
        text.contains("model.safetensors: tensor `model.layers.2.input_layernorm.weight` is missing"),
        "{text}"
    );

    patch_config(folder.path(), json!({ "num_hidden_layers": 2, "tie_word_embeddings": false }));
    assert!(message(folder.path()).contains("tensor `lm_head.weight` is missing"));

    patch_config(folder.path(), json!({ "attention_bias": true, "tie_word_embeddings": true }));
    assert!(message(folder.path()).contains("tensor `model.layers.0.self_attn.q_proj.bias` is missing"));
}

#[test]
fn missing_files_are_named() {
    let folder = copy_of("qwen3-sharded-layout4");
    fs::remove_file(folder.path().join("model-00002-of-00004.safetensors")).unwrap();
    let text = message(folder.path());
    assert!(
        text.contains("model.safetensors.index.json: shard `model-00002-of-00004.safetensors`"),
        "{text}"
    );
    fs::remove_file(folder.path().join(INDEX_FILE)).unwrap();
    assert!(message(folder.path()).contains("has no `model.safetensors` or `model.safetensors.index.json`"));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(message(folder.path()).contains("has no `config.json`"));
}

#[test]
fn an_index_that_lies_is_caught() {
    let folder = copy_of("qwen3-sharded-layout4");
    let index = folder.path().join(INDEX_FILE);
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&index).unwrap()).unwrap();
    value["weight_map"]["model.extra.weight"] = json!("model-00001-of-00004.safetensors");
    fs::write(&index, value.to_string()).unwrap();
    assert!(message(folder.path()).contains("index.json: tensor `model.extra.weight` is missing"));
    value["weight_map"]["model.extra.weight"] = json!("../elsewhere.safetensors");
    fs::write(&index, value.to_string()).unwrap();
    assert!(message(folder.path()).contains("outside the folder"));
}

#[test]
fn integers_are_no_weights() {
    let folder = copy_of("llama-tied");
    let header = json!({
        "model.embed_tokens.weight": { "dtype": "I8", "shape": [64, 32], "data_offsets": [0, 2048] },
    });
    write_file(&folder.path().join(WEIGHTS_FILE), &header, 2048);
    assert!(message(folder.path()).contains("`model.embed_tokens.weight` has type Int8, expected F32"));
}

#[test]
fn an_unknown_quantization_is_refused_by_name() {
    let folder = copy_of("llama-tied");
    patch_config(folder.path(), json!({ "quantization_config": { "quant_method": "hqq" } }));
    assert!(message(folder.path()).contains("hqq"));
}

#[test]
fn an_output_projection_of_its_own_is_not_tied() {
    let golden = Checkpoint::open(&golden("llama-tied")).unwrap();
    let embedding = golden.tensor(EMBEDDING).unwrap();
    for (head, is_tied) in [(embedding.copy(), true), (embedding.neg(), false)] {
        let folder = copy_of("llama-tied");
        let mut tensors: Vec<(String, Tensor)> =
            golden.names().map(|name| (name.to_owned(), golden.tensor(name).unwrap())).collect();
        tensors.push((format!("{HEAD}.weight"), head));
        Tensor::write_safetensors(&tensors, folder.path().join(WEIGHTS_FILE)).unwrap();
        assert_eq!(Checkpoint::open(folder.path()).unwrap().config.tie_word_embeddings, is_tied);
    }
}
