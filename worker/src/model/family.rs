//! The model families: what distinguishes them besides the numbers in config.json. One decoder runs all of
//! them; a new family that differs only in these points is one line in [`FAMILIES`].

use serde_json::Value;

use super::config::Fields;
use super::error::ModelError;

/// Which attention projections have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBias {
    /// None has.
    Never,
    /// All four have one if config.json says `attention_bias: true`.
    Configured,
    /// The query, key and value projections have one, the output projection has none.
    QueryKeyValue,
}

/// Which layers attend only to the last `sliding_window` positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// None does.
    Never,
    /// All do, unless `sliding_window` is null.
    Every,
    /// With `use_sliding_window: true`, those that `layer_types` names, else those from `max_window_layers` on.
    ByLayer,
}

/// One family, with the defaults that transformers 5.17 fills into its config.json.
#[derive(Debug)]
pub struct Family {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// The entry of `architectures` in config.json.
    pub architecture: &'static str,
    /// Which attention projections have a bias.
    pub attention_bias: AttentionBias,
    /// Whether `mlp_bias` in config.json counts.
    pub mlp_bias: bool,
    /// Whether queries and keys are normalised per head before the rotation.
    pub query_key_norm: bool,
    /// Which layers have a sliding window.
    pub window: Window,
    /// `head_dim` where absent; `None`: hidden_size / num_attention_heads.
    pub head_dim: Option<i64>,
    /// `num_key_value_heads` where absent; `None`: num_attention_heads.
    pub key_value_heads: Option<i64>,
    /// `max_position_embeddings` where absent.
    pub max_positions: i64,
    /// `bos_token_id` where absent.
    pub bos: Option<i64>,
    /// `eos_token_id` where absent.
    pub eos: Option<i64>,
}

/// Every family that the decoder runs. Facts: `configuration_*.py` and `modeling_*.py` of transformers 5.17.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        model_type: "llama",
        architecture: "LlamaForCausalLM",
        attention_bias: AttentionBias::Configured,
        mlp_bias: true,
        query_key_norm: false,
        window: Window::Never,
        head_dim: None,
        key_value_heads: None,
        max_positions: 2048,
        bos: Some(1),
        eos: Some(2),
    },
    Family {
        model_type: "mistral",
        architecture: "MistralForCausalLM",
        attention_bias: AttentionBias::Never,
        mlp_bias: false,
        query_key_norm: false,
        window: Window::Every,
        head_dim: None,
        key_value_heads: Some(8),
        max_positions: 131_072,
        bos: Some(1),
        eos: Some(2),
    },
    Family {
        model_type: "qwen2",
        architecture: "Qwen2ForCausalLM",
        attention_bias: AttentionBias::QueryKeyValue,
        mlp_bias: false,
        query_key_norm: false,
        window: Window::ByLayer,
        head_dim: None,
        key_value_heads: None,
        max_positions: 32_768,
        bos: None,
        eos: None,
    },
    Family {
        model_type: "qwen3",
        architecture: "Qwen3ForCausalLM",
        attention_bias: AttentionBias::Configured,
        mlp_bias: false,
        query_key_norm: true,
        window: Window::ByLayer,
        head_dim: Some(128),
        key_value_heads: None,
        max_positions: 32_768,
        bos: None,
        eos: None,
    },
];

/// The family of a config.json, by all that it says: a `model_type` also stands in the config.json of classifiers and
/// embedders, which have no language-model head, and transformers loads by the `model_type` whatever the architecture is.
pub(super) fn of(fields: &Fields<'_>) -> Result<&'static Family, ModelError> {
    let model_type = fields.text("model_type")?;
    let architecture = match fields.map.get("architectures") {
        None | Some(Value::Null) => None,
        Some(Value::Array(names)) if names.is_empty() => None,
        Some(Value::Array(names)) => match names[0].as_str() {
            Some(name) => Some(name),
            None => return Err(fields.wrong("architectures", "is not a list of names".to_owned())),
        },
        Some(_) => return Err(fields.wrong("architectures", "is not a list of names".to_owned())),
    };
    let Some(name) = architecture.or(model_type) else {
        return Err(fields.wrong("model_type", "is missing".to_owned()));
    };
    if let (Some(architecture), Some(model_type)) = (architecture, model_type)
        && let (Some(_), Some(by_type)) = (find(None, Some(architecture)), find(Some(model_type), None))
        && by_type.architecture != architecture
    {
        let problem =
            format!("is {architecture}, which is not the architecture of `model_type` {model_type}");
        return Err(fields.wrong("architectures", problem));
    }
    find(model_type, architecture).ok_or_else(|| ModelError::UnknownArchitecture {
        file: fields.file.to_owned(),
        name: name.to_owned(),
        known: known(),
    })
}

/// The family by the names that are given, which have to agree.
fn find(model_type: Option<&str>, architecture: Option<&str>) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| {
        (architecture.is_some() || model_type.is_some())
            && architecture.is_none_or(|architecture| family.architecture == architecture)
            && model_type.is_none_or(|model_type| family.model_type == model_type)
    })
}

/// All names, for messages.
fn known() -> String {
    let names: Vec<&str> = FAMILIES.iter().map(|family| family.architecture).collect();
    names.join(", ")
}
