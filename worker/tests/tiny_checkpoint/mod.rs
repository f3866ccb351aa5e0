//! A random Llama small enough for a test, with a tokenizer of one token a byte, and questions for it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use fs_err as fs;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// The model's context.
pub(crate) const CONTEXT: usize = 512;
/// Its vocabulary.
pub(crate) const VOCABULARY: usize = 256;

const HIDDEN: usize = 32;
const INTERMEDIATE: usize = 48;
const LAYERS: usize = 2;
const HEAD_DIM: usize = 8;
const HEADS: usize = 4;
const KEY_HEADS: usize = 2;

/// Writes the checkpoint into `folder`. Tensors hold what `weight` gives for a running number.
pub(crate) fn write(folder: &Path, mut weight: impl FnMut(u64) -> f32) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32",
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS,
        "head_dim": HEAD_DIM, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT, "tie_word_embeddings": true, "bos_token_id": null
    });
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), byte_tokenizer().to_string()).unwrap();

    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let parts: [(&str, Vec<usize>); 9] = [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HEADS * HEAD_DIM, HIDDEN]),
            ("self_attn.k_proj", vec![KEY_HEADS * HEAD_DIM, HIDDEN]),
            ("self_attn.v_proj", vec![KEY_HEADS * HEAD_DIM, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HEADS * HEAD_DIM]),
            ("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]),
        ];
        shapes.extend(parts.map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape)));
    }
    let mut counter = 0;
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product::<usize>() as u64;
            let bytes = (counter..counter + count).flat_map(|number| weight(number).to_le_bytes()).collect();
            counter += count;
            (name, shape, bytes)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    safetensors::serialize_to_file(views, metadata, &folder.join("model.safetensors")).unwrap();
}

/// A weight between -0.5 and 0.5 that depends on its number alone (splitmix64).
pub(crate) fn random_weight(number: u64) -> f32 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 - 0.5
}

/// Byte-level BPE without merges: a token a byte, written as GPT-2 writes bytes.
fn byte_tokenizer() -> Value {
    let plain = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut moved = 256..;
    let mut vocabulary = serde_json::Map::new();
    for byte in 0..256 {
        let code = if plain(byte) { byte } else { moved.next().unwrap() };
        vocabulary.insert(char::from_u32(code).unwrap().to_string(), Value::from(byte));
    }
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false, "byte_fallback": false,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "vocab": vocabulary, "merges": []}
    })
}

/// Writes `count` questions of very different lengths to `file`; choices differ in length, too.
#[allow(dead_code, reason = "not every test asks questions")]
pub(crate) fn write_questions(file: &Path, count: usize) {
    let mut text = String::new();
    for index in 0..count {
        let words = ["pear", "fig", "an apple", "apricots"].map(|word| format!("{word} {}", index % 7));
        let question = format!("Which fruit is number {index}? {}", "so ripe, ".repeat(index * 13 % 17));
        let row = json!({"question": question, "choices": words, "answer": index % 4});
        text.push_str(&format!("{row}\n"));
    }
    fs::write(file, text).unwrap();
}
