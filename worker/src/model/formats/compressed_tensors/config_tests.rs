#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::super::describe::describe;
use super::*;

fn parse(value: &Value) -> Result<QuantizationConfig, String> {
    QuantizationConfig::parse(Path::new("config.json"), value).map_err(|error| error.to_string())
}

/// `describe` with the value at `pointer` replaced.
fn with(scheme: StoredScheme, pointer: &str, value: Value) -> Value {
    let mut config = describe(scheme, &["lm_head"]);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
    config
}

const W4A16: StoredScheme = StoredScheme::W4A16;
const GROUP: &str = "/config_groups/group_0";

#[test]
fn what_is_written_is_read() {
    for scheme in [
        StoredScheme::W8A8,
        StoredScheme::W8A8Static,
        StoredScheme::W8A8Torchao,
        StoredScheme::W8A16,
        W4A16,
        StoredScheme::WeightOnly { bits: 4, group: None, asym: false },
        StoredScheme::WeightOnly { bits: 4, group: Some(64), asym: true },
        StoredScheme::WeightOnly { bits: 3, group: Some(128), asym: false },
        StoredScheme::PACKED_W8A16,
        StoredScheme::W4A8 { group: Some(128) },
        StoredScheme::W4A8 { group: None },
    ] {
        let config = parse(&describe(scheme, &["lm_head"])).unwrap();
        assert_eq!(config.scheme_of("model.layers.0.self_attn.q_proj"), Some(scheme));
        assert_eq!(config.scheme_of("lm_head"), None);
    }
}

#[test]
fn ignored_layers_are_told_by_name_and_by_expression() {
    let ignore = json!(["model.layers.0.mlp.up_proj", "re:.*down_proj", "re:o_proj"]);
    let config = parse(&with(StoredScheme::W8A8, "/ignore", ignore)).unwrap();
    assert_eq!(config.scheme_of("model.layers.0.mlp.up_proj"), None);
    assert_eq!(config.scheme_of("model.layers.10.mlp.up_proj"), Some(StoredScheme::W8A8));
    assert_eq!(config.scheme_of("model.layers.3.mlp.down_proj"), None);
    // re.match starts at the beginning.
    assert_eq!(config.scheme_of("model.layers.3.self_attn.o_proj"), Some(StoredScheme::W8A8));
}

#[test]
fn the_more_specific_target_wins() {
    let mut config = describe(StoredScheme::W8A8, &[]);
    config["format"] = json!("mixed-precision");
    let mut second = describe(W4A16, &[])["config_groups"]["group_0"].clone();
    second["targets"] = json!(["re:.*mlp.*"]);
    config["config_groups"]["group_1"] = second;
    let config = parse(&config).unwrap();
    assert_eq!(config.scheme_of("model.layers.0.mlp.up_proj"), Some(W4A16));
    assert_eq!(config.scheme_of("model.layers.0.self_attn.q_proj"), Some(StoredScheme::W8A8));
}

#[test]
fn presets_are_lists_of_targets() {
    let config =
        json!({ "quant_method": METHOD, "format": "int-quantized", "config_groups": { "W8A8": ["Linear"] } });
    assert_eq!(parse(&config).unwrap().scheme_of("x"), Some(StoredScheme::W8A8));
    let config = json!({ "quant_method": METHOD, "config_groups": { "FP8": ["Linear"] } });
    let error = parse(&config).unwrap_err();
    assert!(error.contains("quantization_config.config_groups.FP8"), "{error}");
}

#[test]
fn the_strategy_follows_from_the_group_size() {
    for (size, scheme) in [
        (json!(64), StoredScheme::WeightOnly { bits: 4, group: Some(64), asym: false }),
        (json!(-1), StoredScheme::WeightOnly { bits: 4, group: None, asym: false }),
    ] {
        let mut config = with(W4A16, &format!("{GROUP}/weights/strategy"), Value::Null);
        config["config_groups"]["group_0"]["weights"]["group_size"] = size;
        assert_eq!(parse(&config).unwrap().scheme_of("x"), Some(scheme));
    }
}

#[test]
fn whatever_is_not_implemented_is_refused_with_its_place_and_value() {
    let cases = [
        (StoredScheme::W8A8, "/quantization_status", json!("frozen")),
        (StoredScheme::W8A8, "/format", json!("float-quantized")),
        (StoredScheme::W8A8Torchao, "/qpipe/activations", json!("vllm")),
        (StoredScheme::W8A8Torchao, "/qpipe/weights", json!("torchao")),
        (StoredScheme::W8A8, "/kv_cache_scheme", json!({ "num_bits": 8 })),
        (StoredScheme::W8A8, "/transform_config", json!({ "config_groups": {} })),
        (StoredScheme::W8A8, "/config_groups/group_0/weights/num_bits", json!(6)),
        (StoredScheme::W8A8, "/config_groups/group_0/weights/type", json!("float")),
        (StoredScheme::W8A8, "/config_groups/group_0/weights/strategy", json!("tensor")),
        (StoredScheme::W4A8 { group: None }, "/config_groups/group_0/input_activations", Value::Null),
        (StoredScheme::W8A16, "/config_groups/group_0/weights/strategy", json!("group")),
        (StoredScheme::W8A8, "/config_groups/group_0/input_activations/dynamic", json!("local")),
        (StoredScheme::W8A8Static, "/config_groups/group_0/input_activations/strategy", json!("token")),
        (StoredScheme::W8A8Static, "/config_groups/group_0/input_activations/symmetric", json!(false)),
        (StoredScheme::W4A8 { group: None }, "/config_groups/group_0/input_activations/num_bits", json!(4)),
        (StoredScheme::W8A8, "/config_groups/group_0/input_activations/strategy", json!("tensor")),
        (StoredScheme::W8A8, "/config_groups/group_0/output_activations", json!({ "num_bits": 8 })),
        (StoredScheme::W8A8, "/config_groups/group_0/weights/symmetric", json!(false)),
        (W4A16, "/config_groups/group_0/weights/zp_dtype", json!("torch.float16")),
        (W4A16, "/config_groups/group_0/weights/num_bits", json!(9)),
        (W4A16, "/config_groups/group_0/weights/actorder", json!("group")),
        (W4A16, "/config_groups/group_0/weights/group_size", json!(0)),
        (W4A16, "/config_groups/group_0/targets", json!(["re:(?=lookahead)"])),
        (W4A16, "/rotation", json!("hadamard")),
        (W4A16, "/config_groups/group_0/weights/codebook", json!([-1, 1])),
        (W4A16, "/config_groups/group_0/weight_transform", json!("hadamard")),
    ];
    for (scheme, pointer, value) in cases {
        let mut config = with(scheme, pointer, value);
        if pointer == "/format" {
            config["config_groups"]["group_0"]["format"] = Value::Null;
        }
        let error = parse(&config).unwrap_err();
        let place = format!("config.json: `quantization_config{}", pointer.replace('/', "."));
        assert!(error.starts_with(&place), "{error}");
        assert!(error.contains("is not supported (known: "), "{error}");
    }
}
