//! Tests of `config.rs` and `rope.rs`: layouts, defaults, refusals.

use serde_json::json;

use super::*;
use crate::model::rope::RopeScaling;

fn llama() -> Value {
    json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    })
}

fn with(mut config: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn parse(config: &Value) -> Result<Config, ModelError> {
    let file = Path::new("folder/config.json");
    Config::from_fields(&Fields { file, prefix: "", map: config.as_object().unwrap() })
}

fn message(config: &Value) -> String {
    parse(config).unwrap_err().to_string()
}

#[test]
fn absent_fields_get_the_defaults_of_transformers() {
    let config = parse(&llama()).unwrap();
    assert_eq!((config.kv_heads, config.head_dim), (4, 8));
    assert_eq!(config.norm_eps, 1e-6);
    assert_eq!(config.rope, RopeParameters { theta: 10_000.0, scaling: RopeScaling::None });
    assert_eq!((config.bos, config.eos.as_slice()), (Some(1), &[2][..]));
    assert!(!config.tie_word_embeddings && !config.query_key_value_bias && !config.mlp_bias);
    assert_eq!((config.dtype, config.max_positions), (None, 2048));

    let qwen3 = with(llama(), json!({ "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"] }));
    let config = parse(&qwen3).unwrap();
    assert_eq!((config.head_dim, config.bos), (128, None));
    let qwen2 = with(llama(), json!({ "model_type": "qwen2", "architectures": null }));
    let config = parse(&qwen2).unwrap();
    assert!(config.query_key_value_bias && !config.attention_output_bias);
    let mistral = with(
        llama(),
        json!({ "model_type": "mistral", "architectures": ["MistralForCausalLM"], "num_key_value_heads": null }),
    );
    let config = parse(&mistral).unwrap();
    assert_eq!((config.kv_heads, config.windows.as_slice()), (4, &[Some(4096), Some(4096)][..]));
}

#[test]
fn contradictions_and_absurd_numbers_are_refused_by_name() {
    for (change, expected) in [
        (
            json!({ "architectures": ["Qwen3ForCausalLM"] }),
            "`architectures` is Qwen3ForCausalLM, which is not the architecture of `model_type` llama",
        ),
        (json!({ "rms_norm_eps": 1e300 }), "`rms_norm_eps` is 1e300, expected a number of at most 1"),
    ] {
        let error = parse(&with(llama(), change)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn both_layouts_say_the_same() {
    let old = with(
        llama(),
        json!({
            "torch_dtype": "bfloat16",
            "rope_theta": 500000.0,
            "rope_scaling": {
                "type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                "original_max_position_embeddings": 8192
            },
        }),
    );
    let new = with(
        llama(),
        json!({
            "dtype": "bfloat16",
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8, "low_freq_factor": 1,
                "high_freq_factor": 4, "original_max_position_embeddings": 8192
            },
        }),
    );
    let (old, new) = (parse(&old).unwrap(), parse(&new).unwrap());
    assert_eq!(old.rope, new.rope);
    assert_eq!(old.dtype, new.dtype);
    assert_eq!(old.dtype, Some(Kind::BFloat16));
    assert_eq!(
        new.rope.scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192.0
        }
    );
}

#[test]
fn windows_follow_the_family() {
    let window = json!({ "sliding_window": 16, "use_sliding_window": true, "max_window_layers": 1 });
    let of = |model_type: &str, changes: Value| {
        let config = with(with(llama(), json!({ "model_type": model_type, "architectures": [] })), changes);
        parse(&config).unwrap().windows
    };
    assert_eq!(of("llama", window.clone()), [None, None]);
    assert_eq!(of("mistral", window.clone()), [Some(16), Some(16)]);
    assert_eq!(of("mistral", json!({ "sliding_window": null })), [None, None]);
    assert_eq!(of("qwen2", window), [None, Some(16)]);
    assert_eq!(of("qwen2", json!({ "sliding_window": 16 })), [None, None]);
    let typed = json!({
        "sliding_window": 16, "use_sliding_window": true,
        "layer_types": ["sliding_attention", "full_attention"]
    });
    assert_eq!(of("qwen3", typed), [Some(16), None]);
}

#[test]
fn end_tokens_are_one_or_several_or_none() {
    assert_eq!(parse(&with(llama(), json!({ "eos_token_id": [7, 9] }))).unwrap().eos, [7, 9]);
    assert_eq!(parse(&with(llama(), json!({ "eos_token_id": 7 }))).unwrap().eos, [7]);
    assert!(parse(&with(llama(), json!({ "eos_token_id": null }))).unwrap().eos.is_empty());
}

#[test]
fn what_the_decoder_cannot_run_is_refused_by_name() {
    for (changes, expected) in [
        (json!({ "architectures": ["GPT2LMHeadModel"] }), "architecture `GPT2LMHeadModel` is not supported"),
        (
            json!({ "architectures": ["LlamaForSequenceClassification"] }),
            "`LlamaForSequenceClassification` is not supported (known: LlamaForCausalLM, MistralForCausalLM",
        ),
        (json!({ "architectures": null, "model_type": "gemma3" }), "architecture `gemma3` is not supported"),
        (json!({ "hidden_act": "gelu" }), "`hidden_act: gelu` is not supported (known: silu)"),
        (
            json!({ "rope_scaling": { "type": "yarn", "factor": 4.0 } }),
            "`rope_scaling.type: yarn` is not supported (known: default, linear, llama3)",
        ),
        (
            json!({ "rope_parameters": { "full_attention": { "rope_type": "default" } } }),
            "`rope_parameters.full_attention: {…}` is not supported",
        ),
        (
            json!({ "rope_parameters": { "rope_type": "default", "partial_rotary_factor": 0.5 } }),
            "`rope_parameters.partial_rotary_factor: 0.5` is not supported",
        ),
        (json!({ "torch_dtype": "float8_e4m3fn" }), "`torch_dtype: float8_e4m3fn` is not supported"),
    ] {
        let text = message(&with(llama(), changes));
        assert!(text.starts_with("folder/config.json: ") && text.contains(expected), "{text}");
    }
}

#[test]
fn absurd_fields_are_named() {
    for (changes, expected) in [
        (json!({ "num_attention_heads": 0 }), "`num_attention_heads` is 0, expected a whole number from 1"),
        (json!({ "hidden_size": -32 }), "`hidden_size` is -32"),
        (json!({ "hidden_size": 33 }), "`hidden_size` is 33, not a multiple of num_attention_heads (4)"),
        (json!({ "hidden_size": "big" }), "`hidden_size` is \"big\""),
        (json!({ "vocab_size": null }), "`vocab_size` is missing"),
        (json!({ "num_hidden_layers": 1e9 }), "`num_hidden_layers` is 1000000000.0"),
        (json!({ "num_key_value_heads": 3 }), "`num_key_value_heads` is 3, which does not divide"),
        (json!({ "head_dim": 7 }), "`head_dim` is 7, expected an even number"),
        (json!({ "rms_norm_eps": 0 }), "`rms_norm_eps` is 0, expected a number above 0"),
        (json!({ "rope_theta": "x" }), "`rope_theta` is \"x\""),
        (json!({ "rope_scaling": { "rope_type": "linear" } }), "`rope_scaling.factor` is missing"),
        (json!({ "rope_scaling": 3 }), "`rope_scaling` is 3, expected an object"),
        (json!({ "tie_word_embeddings": "yes" }), "`tie_word_embeddings` is \"yes\", expected true or false"),
        (json!({ "eos_token_id": "</s>" }), "`eos_token_id` is \"</s>\", expected a token number"),
        (json!({ "architectures": null, "model_type": null }), "`model_type` is missing"),
    ] {
        let text = message(&with(llama(), changes));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn settings_that_stand_beside_config_json_are_read() {
    for (name, settings, method) in [
        ("quantize_config.json", r#"{"bits": 4, "group_size": 128, "desc_act": false}"#, "gptq"),
        ("quant_config.json", r#"{"w_bit": 4, "q_group_size": 128, "zero_point": true}"#, "awq"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_FILE), llama().to_string()).unwrap();
        assert_eq!(Config::read(folder.path()).unwrap().quantization, None);
        let file = folder.path().join(name);
        fs::write(&file, settings).unwrap();
        let config = Config::read(folder.path()).unwrap();
        assert_eq!(config.quantization.unwrap()["quant_method"], method);
        assert_eq!(config.quantization_file, file);

        fs::write(&file, "[4]").unwrap();
        let error = Config::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("is not a JSON object"), "{error}");
        let config = with(llama(), json!({ "quantization_config": { "quant_method": "x" } }));
        fs::write(folder.path().join(CONFIG_FILE), config.to_string()).unwrap();
        assert_eq!(Config::read(folder.path()).unwrap().quantization.unwrap()["quant_method"], "x");
    }
}
