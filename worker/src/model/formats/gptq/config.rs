//! `quantization_config`, written and read.

use std::path::Path;

use serde_json::{Value, json};

use super::METHOD;
use crate::model::error::ModelError;
use crate::model::formats::expect_known;

/// Widths of codes.
const WIDTHS: [u32; 4] = [2, 3, 4, 8];

/// Settings that decide what a folder's numbers mean, under the names of GPTQModel, AutoGPTQ and their predecessors.
const SETTINGS: [&str; 15] = [
    "quant_method",
    "method",
    "bits",
    "wbits",
    "w_bit",
    "group_size",
    "groupsize",
    "q_group_size",
    "desc_act",
    "sym",
    "lm_head",
    "checkpoint_format",
    "format",
    "version",
    "pack_dtype",
];
/// Settings that only say how the codes were found, or how others are to load them.
const HISTORY: [&str; 24] = [
    "meta",
    "damp_percent",
    "damp_auto_increment",
    "true_sequential",
    "static_groups",
    "act_group_aware",
    "mse",
    "tokenizer",
    "dataset",
    "batch_size",
    "pad_token_id",
    "max_input_length",
    "model_seqlen",
    "cache_block_outputs",
    "block_name_to_quantize",
    "module_name_preceding_first_block",
    "modules_in_block_to_quantize",
    "model_name_or_path",
    "model_file_base_name",
    "backend",
    "use_exllama",
    "disable_exllama",
    "exllama_config",
    "use_cuda_fp16",
];

/// How zero points are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `gptq`: less one.
    V1,
    /// `gptq_v2`: as they are.
    V2,
}

impl Version {
    /// `checkpoint_format` in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "gptq",
            Self::V2 => "gptq_v2",
        }
    }
}

/// What `quantization_config` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// 2, 3, 4 or 8.
    pub bits: u32,
    /// `None`: all input channels share a scale.
    pub group: Option<i64>,
    /// Whether zero points are half of the range.
    pub is_symmetric: bool,
    /// Whether `g_idx` scatters groups (`desc_act`).
    pub scatters_groups: bool,
    /// How zero points are stored.
    pub version: Version,
    /// The damping that was asked for; for the record.
    pub damping: f64,
}

/// The `quantization_config` of a checkpoint whose linear layers, all but the output projection, are stored so: what
/// GPTQModel 7.3 writes and others read of it.
pub fn describe(config: &Config) -> Value {
    json!({
        "quant_method": METHOD,
        "method": METHOD,
        "bits": config.bits,
        "group_size": config.group.unwrap_or(-1),
        "desc_act": config.scatters_groups,
        "sym": config.is_symmetric,
        "lm_head": false,
        "checkpoint_format": config.version.name(),
        "format": config.version.name(),
        "pack_dtype": "int32",
        "meta": {
            "quantizer": [concat!("qpipe:", env!("CARGO_PKG_VERSION"))],
            "damp_percent": config.damping,
        },
    })
}

impl Config {
    pub(super) fn parse(file: &Path, value: &Value) -> Result<Self, ModelError> {
        let refuse = |field: &str, value: &Value, known: &str| ModelError::Unsupported {
            file: file.to_owned(),
            field: format!("quantization_config.{field}"),
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            known: known.to_owned(),
        };
        // AutoGPTQ and its predecessors had other names.
        let first = |names: &[&'static str]| {
            let found = names.iter().find_map(|name| Some((*name, value.get(name)?)));
            found.filter(|(_, value)| !value.is_null())
        };
        let bits = match first(&["bits", "wbits", "w_bit"]) {
            None => 4,
            Some((name, bits)) => {
                let found = WIDTHS.into_iter().find(|width| bits == width);
                found.ok_or_else(|| refuse(name, bits, "2, 3, 4, 8"))?
            }
        };
        let group = match first(&["group_size", "groupsize", "q_group_size"]) {
            None => Some(128),
            Some((_, size)) if size == -1 => None,
            Some((name, size)) => match size.as_i64().filter(|size| *size > 0) {
                Some(size) => Some(size),
                None => return Err(refuse(name, size, "a positive number, -1")),
            },
        };
        let version = match first(&["checkpoint_format", "format", "version"]) {
            None => Version::V1,
            Some((_, name)) if name == "gptq" => Version::V1,
            Some((_, name)) if name == "gptq_v2" => Version::V2,
            Some((name, version)) => return Err(refuse(name, version, "gptq, gptq_v2")),
        };
        if let Some((name, words)) = first(&["pack_dtype"])
            && words != "int32"
        {
            return Err(refuse(name, words, "int32"));
        }
        expect_known(file, value, &[&SETTINGS, &HISTORY])?;
        let is_true = |names: &[&'static str]| first(names).is_some_and(|(_, value)| value == true);
        if is_true(&["lm_head"]) {
            return Err(refuse("lm_head", &json!(true), "false"));
        }
        let damping = value.pointer("/meta/damp_percent").and_then(Value::as_f64).unwrap_or_default();
        Ok(Self {
            bits,
            group,
            is_symmetric: first(&["sym"]).is_none_or(|(_, value)| value == true),
            scatters_groups: is_true(&["desc_act"]),
            version,
            damping,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        bits: 4,
        group: Some(128),
        is_symmetric: true,
        scatters_groups: false,
        version: Version::V1,
        damping: 0.05,
    };

    fn parse(value: &Value) -> Result<Config, String> {
        Config::parse(Path::new("config.json"), value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read() {
        for bits in WIDTHS {
            for version in [Version::V1, Version::V2] {
                for group in [None, Some(32)] {
                    let config = Config { bits, version, group, scatters_groups: true, ..CONFIG };
                    assert_eq!(parse(&describe(&config)).unwrap(), config);
                }
            }
        }
    }

    #[test]
    fn older_names_are_known_and_other_settings_are_refused_by_name() {
        let old = json!({"wbits": 3, "groupsize": -1, "sym": false});
        let config = parse(&old).unwrap();
        assert_eq!((config.bits, config.group, config.version), (3, None, Version::V1));
        for (key, value) in [
            ("bits", json!(5)),
            ("group_size", json!(0)),
            ("checkpoint_format", json!("marlin")),
            ("pack_dtype", json!("int16")),
            ("dynamic", json!({"-:.*down.*": {}})),
            ("lm_head", json!(true)),
            ("rotation", json!("hadamard")),
            ("is_marlin_format", json!(true)),
        ] {
            let mut config = describe(&CONFIG);
            config[key] = value;
            let error = parse(&config).unwrap_err();
            assert!(error.starts_with(&format!("config.json: `quantization_config.{key}: ")), "{error}");
        }
    }
}
