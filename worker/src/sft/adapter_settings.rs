//! `adapter_config.json`: what peft needs to put an adapter on a model, and what of it decides the merged weights.

use std::path::Path;

use fs_err as fs;
use qpipe_nodes::kinds::Lora;
use serde_json::{Map, Value, json};

use super::adapter_error::AdapterError;

/// `r` where adapter_config.json has none.
const DEFAULT_RANK: i64 = 8;
/// The version of peft whose format this is.
const PEFT_VERSION: &str = "0.21.2";

/// peft's settings, all that it needs to put the adapter on the model again. The model's path is left out: it
/// differs from machine to machine.
pub(super) fn describe(lora: &Lora) -> Value {
    json!({
        "alpha_pattern": {},
        "base_model_name_or_path": null,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": whole(lora.alpha),
        "lora_dropout": lora.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "peft_version": PEFT_VERSION,
        "r": lora.rank,
        "rank_pattern": {},
        "target_modules": lora.targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    })
}

/// peft declares alpha as an integer; a fraction is kept as it is.
fn whole(alpha: f64) -> Value {
    if alpha.fract() == 0.0 && alpha < 9e15 { json!(alpha as u64) } else { json!(alpha) }
}

/// What of peft's settings decides the merged weights.
#[derive(Debug)]
pub(super) struct Settings {
    /// `r`, then those of `rank_pattern`. The patterns themselves are not matched: each layer's matrices say which
    /// of these is theirs.
    pub(super) ranks: Vec<i64>,
    alpha: f64,
    rank_stabilised: bool,
}

impl Settings {
    pub(super) fn read(path: &Path) -> Result<Self, AdapterError> {
        let text = fs::read_to_string(path)?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|source| AdapterError::Json { path: path.to_owned(), source })?;
        let wrong = |key, value: &Value, expected| AdapterError::Setting {
            path: path.to_owned(),
            key,
            found: if value.is_null() { "absent".to_owned() } else { value.to_string() },
            expected,
        };
        let Value::Object(object) = &value else { return Err(wrong("peft_type", &Value::Null, "an object")) };
        if value["peft_type"] != "LORA" {
            return Err(wrong("peft_type", &value["peft_type"], "\"LORA\""));
        }
        if let Some(key) = unsupported(object) {
            let value = object[key].to_string();
            return Err(AdapterError::Unsupported { path: path.to_owned(), key, value });
        }
        let alpha = value["lora_alpha"]
            .as_f64()
            .ok_or_else(|| wrong("lora_alpha", &value["lora_alpha"], "a number"))?;
        let mut ranks = match &value["r"] {
            Value::Null => vec![DEFAULT_RANK],
            rank => vec![rank.as_i64().ok_or_else(|| wrong("r", rank, "a whole number"))?],
        };
        ranks.extend(
            value["rank_pattern"].as_object().into_iter().flatten().filter_map(|(_, rank)| rank.as_i64()),
        );
        Ok(Self { ranks, alpha, rank_stabilised: value["use_rslora"] == true })
    }

    pub(super) fn scale(&self, rank: i64) -> f64 {
        let rank = rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

/// The first setting that changes more than W + scale · B A does, if one is switched on.
fn unsupported(settings: &Map<String, Value>) -> Option<&'static str> {
    /// Off when absent, null, false or empty.
    const SWITCHES: [&str; 14] = [
        "alora_invocation_tokens",
        "alpha_pattern",
        "arrow_config",
        "fan_in_fan_out",
        "kasa_config",
        "layer_replication",
        "lora_bias",
        "modules_to_save",
        "monteclora_config",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_dora",
        "use_qalora",
    ];
    /// First weights that leave the model's own as they are; others subtract from them.
    const PLAIN_STARTS: [&str; 3] = ["gaussian", "orthogonal", "eva"];
    let on = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    let switched = SWITCHES.into_iter().find(|key| settings.get(*key).is_some_and(on));
    let bias = settings.get("bias").filter(|bias| !bias.is_null() && *bias != "none").map(|_| "bias");
    let start = settings
        .get("init_lora_weights")
        .and_then(Value::as_str)
        .filter(|start| !PLAIN_STARTS.contains(start))
        .map(|_| "init_lora_weights");
    switched.or(bias).or(start)
}
