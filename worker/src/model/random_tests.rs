//! Tests of `random.rs`: the bytes are pinned, the distribution is right, the model runs.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use qpipe_nodes::protocol::{Action, Device, Event, Input};
use tempfile::TempDir;

use super::*;
use crate::context::Events;
use crate::model::generate::generate;
use crate::model::{Checkpoint, Decoder, LoadOptions};

#[derive(Default)]
struct Recorded(Mutex<Vec<Event>>);

impl Events for Recorded {
    fn send(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

fn config() -> Value {
    json!({
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 200, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "attention_bias": true, "tie_word_embeddings": false, "dtype": "float32",
    })
}

fn make(folder: &Path, params: Value, threads: u32) -> Result<Facts, ActionError> {
    fs::write(folder.join("given.json"), config().to_string()).unwrap();
    let mut params = params;
    params["model"] = json!("random:given.json");
    let action = Action {
        id: 1,
        kind: "download".to_owned(),
        params,
        inputs: BTreeMap::from([("config".to_owned(), Input::One(folder.join("given.json")))]),
        scratch: folder.to_owned(),
        device: Device::Cpu,
        threads,
        max_memory: None,
    };
    run(&Context::new(&action, &Recorded::default(), &AtomicBool::new(false)))
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("out/model.safetensors")).unwrap()
}

fn spec(kind: Kind, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: "model.embed_tokens.weight".to_owned(), kind, shape: shape.to_vec() }
}

#[test]
fn the_bytes_depend_on_seed_and_type_only() {
    let folders: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    make(folders[0].path(), json!({ "seed": 3 }), 1).unwrap();
    make(folders[1].path(), json!({ "seed": 3 }), 3).unwrap();
    make(folders[2].path(), json!({ "seed": 4 }), 1).unwrap();
    assert!(weights(folders[0].path()) == weights(folders[1].path()));
    assert!(weights(folders[0].path()) != weights(folders[2].path()));
}

/// A change here changes every `random:` model: raise the version of `download` with it.
#[test]
fn the_bytes_are_pinned() {
    let source = Source { seed: 1, deviation: 0.02 };
    let bytes = source.bytes(&spec(Kind::BFloat16, &[3 * STRETCH as i64 + 5]), 2);
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), PINNED);
}

const PINNED: &str = "743a5eee90b49480853eaae72d8638799601bf60c2f8bd4af621ec714cb545f6";

#[test]
fn values_are_normal() {
    let source = Source { seed: 7, deviation: 0.5 };
    let values = source.tensor(&spec(Kind::Float, &[1 << 20]), Fill::Normal, 2).unwrap() / 0.5;
    let moment = |power: f64| values.pow_tensor_scalar(power).mean(Kind::Double).double_value(&[]);
    // Three standard errors of a sample of 2^20.
    assert!(moment(1.0).abs() < 0.003, "{}", moment(1.0));
    assert!((moment(2.0) - 1.0).abs() < 0.005, "{}", moment(2.0));
    assert!(moment(3.0).abs() < 0.012, "{}", moment(3.0));
    assert!((moment(4.0) - 3.0).abs() < 0.03, "{}", moment(4.0));
    let beyond = values.abs().gt(3.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    assert!((beyond - 0.0027).abs() < 0.0002, "{beyond}");
}

#[test]
fn the_logarithm_is_that_of_the_standard_library() {
    for x in [1e-300_f64, 3e-10, 0.1, 0.5, 0.707, 0.9999999, 1.0, 1.5, 2.0, 1234.5] {
        let (ours, theirs) = (natural_logarithm(x), x.ln());
        assert!((ours - theirs).abs() <= 4e-16 * theirs.abs().max(1e-7), "{x}: {ours} {theirs}");
    }
}

#[test]
fn the_model_runs() {
    let folder = TempDir::new().unwrap();
    let facts = make(folder.path(), json!({ "dtype": "bfloat16" }), 2).unwrap();
    let checkpoint = Checkpoint::open(&folder.path().join("out")).unwrap();
    assert_eq!(checkpoint.config.dtype, Some(Kind::BFloat16));
    let decoder = Decoder::load(&checkpoint, &LoadOptions::inference(tch::Device::Cpu, None)).unwrap();
    let parameters = decoder.named_parameters();
    assert_eq!(facts["parameters"], parameters.iter().map(|(_, tensor)| tensor.numel()).sum::<usize>());
    for (name, tensor) in parameters {
        assert_eq!(tensor.kind(), Kind::BFloat16);
        let (low, high) = (tensor.min().double_value(&[]), tensor.max().double_value(&[]));
        match name.rsplit('.').next() {
            Some("bias") => assert_eq!((low, high), (0.0, 0.0), "{name}"),
            _ if name.contains("norm") => assert_eq!((low, high), (1.0, 1.0), "{name}"),
            _ => assert!(low < -0.03 && high > 0.03 && high < 0.15, "{name}: {low} {high}"),
        }
    }
    let mut tokens = Vec::new();
    generate::<tch::TchError>(&decoder, &[&[1, 2, 3]], 4, &mut |_, logits| {
        tokens.push(logits.f_argmax(-1, false)?.int64_value(&[0]));
        Ok(vec![tokens.last().copied().filter(|_| tokens.len() < 4)])
    })
    .unwrap();
    assert_eq!(tokens.len(), 4);
}
