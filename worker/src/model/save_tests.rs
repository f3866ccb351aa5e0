//! Tests of `save.rs`: what is written can be read, by this crate and by the safetensors crate.

use tempfile::TempDir;

use super::*;
use crate::model::TensorFiles;

fn tensors() -> Vec<(String, Tensor)> {
    let values = Tensor::arange(13, (Kind::Float, Device::Cpu));
    let kinds = [
        Kind::Int8,
        Kind::Float,
        Kind::Uint8,
        Kind::BFloat16,
        Kind::Int64,
        Kind::Half,
        Kind::Int,
        Kind::Bool,
        Kind::Double,
        Kind::Int16,
    ];
    let mut all: Vec<_> = kinds.iter().map(|kind| (format!("{kind:?}"), values.to_kind(*kind))).collect();
    all.push(("scalar".to_owned(), Tensor::from(2.5f32)));
    all.push(("nothing".to_owned(), Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))));
    all.push(("transposed".to_owned(), values.narrow(0, 0, 12).view([3, 4]).transpose(0, 1)));
    all
}

fn source() -> TempDir {
    let folder = TempDir::new().unwrap();
    let files = [
        (
            "config.json",
            r#"{"torch_dtype": "float32", "hidden_size": 4, "quantization_config": {"bits": 4}}"#,
        ),
        ("generation_config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{}"),
        ("special_tokens_map.json", "{}"),
        ("chat_template.jinja", "{{ messages }}"),
        ("model.safetensors", "old weights"),
        ("README.md", "a card"),
    ];
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn every_type_comes_back_aligned() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("adapter.safetensors");
    write_tensors(&file, &tensors()).unwrap();
    let bytes = fs::read(&file).unwrap();
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!((header + 8) % ALIGNMENT, 0);
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let files = TensorFiles::open(&file).unwrap();
    for (name, tensor) in tensors() {
        let view = parsed.tensor(&name).unwrap();
        assert_eq!(view.shape().iter().map(|&size| size as i64).collect::<Vec<_>>(), tensor.size(), "{name}");
        let offset = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(offset % tensor.kind().elt_size_in_bytes(), 0, "{name}");
        let read = files.tensor(&name).unwrap();
        assert_eq!((read.kind(), read.size()), (tensor.kind(), tensor.size()));
        assert_eq!(read, tensor, "{name}");
    }
}

#[test]
fn a_large_checkpoint_is_sharded_in_order() {
    let folder = TempDir::new().unwrap();
    let all: Vec<(String, Tensor)> = (0..5)
        .map(|index| (format!("t{index}"), Tensor::full([10], index, (Kind::Float, Device::Cpu))))
        .collect();
    let specs = all.iter().map(|(name, tensor)| TensorSpec::of(name, tensor)).collect();
    let mut writer = CheckpointWriter::create_sharded(folder.path(), specs, 80).unwrap();
    // In any order.
    for (name, tensor) in all.iter().rev() {
        writer.put(name, tensor).unwrap();
    }
    writer.finish().unwrap();
    let index: Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join(INDEX_FILE)).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 200);
    assert_eq!(index["weight_map"]["t1"], "model-00001-of-00003.safetensors");
    assert_eq!(index["weight_map"]["t4"], "model-00003-of-00003.safetensors");
    for (name, tensor) in &all {
        let shard = folder.path().join(index["weight_map"][name].as_str().unwrap());
        assert_eq!(&TensorFiles::open(&shard).unwrap().tensor(name).unwrap(), tensor);
    }
}

#[test]
fn what_was_announced_must_be_written() {
    let folder = TempDir::new().unwrap();
    let tensor = Tensor::zeros([2], (Kind::Float, Device::Cpu));
    let create = || CheckpointWriter::create(folder.path(), vec![TensorSpec::of("a", &tensor)]).unwrap();
    let text = |result: Result<(), ModelError>| result.unwrap_err().to_string();
    assert_eq!(text(create().finish()), "tensor `a`: was announced and never written");
    assert_eq!(text(create().put("b", &tensor)), "tensor `b`: was not announced");
    let half = tensor.to_kind(Kind::Half);
    assert_eq!(text(create().put("a", &half)), "tensor `a`: is Half [2], announced as Float [2]");
    let mut writer = create();
    writer.put("a", &tensor).unwrap();
    assert_eq!(text(writer.put("a", &tensor)), "tensor `a`: is written twice");
    let twice = vec![TensorSpec::of("a", &tensor); 2];
    assert!(CheckpointWriter::create(folder.path(), twice).is_err());
}

#[test]
fn companions_travel_and_the_config_is_patched() {
    let (source, out) = (source(), TempDir::new().unwrap());
    let tensor = Tensor::ones([2], (Kind::Float, Device::Cpu));
    let patch = json!({ "dtype": "bfloat16", "quantization_config": null, "extra": 1 });
    write_checkpoint::<ModelError>(
        out.path(),
        vec![TensorSpec::of("a", &tensor)],
        |_| Ok(tensor.shallow_clone()),
        source.path(),
        Some(&patch),
    )
    .unwrap();
    let config: Value =
        serde_json::from_str(&fs::read_to_string(out.path().join(CONFIG_FILE)).unwrap()).unwrap();
    assert_eq!(config, json!({ "torch_dtype": "bfloat16", "hidden_size": 4, "extra": 1 }));
    let mut names: Vec<String> = fs::read_dir(out.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
}
