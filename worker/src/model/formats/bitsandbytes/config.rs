//! `quantization_config` of bitsandbytes' checkpoints: transformers' `BitsAndBytesConfig`.

use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Map, Value, json};
use tch::Kind;

use super::METHOD;
use crate::model::decoder::HEAD;
use crate::model::error::ModelError;
use crate::torch;

const FOUR_BIT: &str = "load_in_4bit";
const EIGHT_BIT: &str = "load_in_8bit";
const QUANT_TYPE: &str = "bnb_4bit_quant_type";
const COMPUTE: &str = "bnb_4bit_compute_dtype";
const STORAGE: &str = "bnb_4bit_quant_storage";
const THRESHOLD: &str = "llm_int8_threshold";
const SKIPPED: &str = "llm_int8_skip_modules";
const SIXTEEN_BIT: &str = "llm_int8_has_fp16_weight";
/// These change nothing of what is computed: the checkpoint's own tensors say the first, and where weights lie is not
/// the checkpoint's affair.
const WITHOUT_EFFECT: [&str; 2] = ["bnb_4bit_use_double_quant", "llm_int8_enable_fp32_cpu_offload"];

/// The `quantization_config` of NF4 checkpoints: the very object that transformers 5.17 writes.
pub fn describe_nf4(double_quant: bool, compute: Kind) -> Value {
    describe(json!({
        FOUR_BIT: true,
        QUANT_TYPE: "nf4",
        "bnb_4bit_use_double_quant": double_quant,
        COMPUTE: torch::kind_name(compute),
    }))
}

/// The `quantization_config` of LLM.int8() checkpoints: the very object that transformers 5.17 writes.
pub fn describe_int8(threshold: f64) -> Value {
    describe(json!({ EIGHT_BIT: true, THRESHOLD: threshold }))
}

/// transformers' defaults with `settings` put over them.
fn describe(settings: Value) -> Value {
    let mut config = json!({
        "quant_method": METHOD,
        FOUR_BIT: false,
        EIGHT_BIT: false,
        QUANT_TYPE: "fp4",
        "bnb_4bit_use_double_quant": false,
        COMPUTE: "float32",
        STORAGE: "uint8",
        THRESHOLD: 6.0,
        SKIPPED: null,
        SIXTEEN_BIT: false,
        "llm_int8_enable_fp32_cpu_offload": false,
    });
    if let (Some(config), Value::Object(settings)) = (config.as_object_mut(), settings) {
        config.extend(settings);
        for key in [FOUR_BIT, EIGHT_BIT] {
            config.insert(format!("_{key}"), config[key].clone());
        }
    }
    config
}

/// Whether `config` is of this format although it does not name it: so transformers wrote it once.
pub fn is_bitsandbytes(config: &Value) -> bool {
    [FOUR_BIT, EIGHT_BIT].iter().any(|key| config.get(*key) == Some(&Value::Bool(true)))
}

/// What linear layers are stored as.
#[derive(Debug, PartialEq)]
pub(super) enum Scheme {
    /// NF4.
    Nf4 {
        /// What is computed in.
        compute: Kind,
        /// The type that codes are disguised as.
        storage: Kind,
    },
    /// LLM.int8().
    Int8 {
        /// From which magnitude on activations are outliers.
        threshold: f64,
    },
}

/// `quantization_config`.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) scheme: Scheme,
    skipped: Vec<Skipped>,
}

/// Layers in floating point: those whose name begins with a match of the pattern, or ends with the pattern itself.
#[derive(Debug)]
struct Skipped {
    pattern: String,
    at_start: Regex,
}

impl Config {
    pub(super) fn parse(file: &Path, value: &Value) -> Result<Self, ModelError> {
        let no_keys = Map::new();
        let fields = Fields { file: file.to_owned(), keys: value.as_object().unwrap_or(&no_keys) };
        fields.check_known()?;
        let scheme = match (fields.flag(FOUR_BIT)?, fields.flag(EIGHT_BIT)?) {
            (true, false) => fields.nf4()?,
            (false, true) => fields.int8()?,
            (both, _) => {
                let known = format!("one of `{FOUR_BIT}` and `{EIGHT_BIT}` true");
                return Err(fields.refuse(FOUR_BIT, &both.into(), &known));
            }
        };
        Ok(Self { scheme, skipped: fields.skipped()? })
    }

    /// Whether the layer `name` is in floating point.
    pub(super) fn skips(&self, name: &str) -> bool {
        self.skipped.iter().any(|skip| skip.at_start.is_match(name) || name.ends_with(&skip.pattern))
    }
}

struct Fields<'a> {
    file: PathBuf,
    keys: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn refuse(&self, key: &str, value: &Value, known: &str) -> ModelError {
        ModelError::Unsupported {
            file: self.file.clone(),
            field: format!("quantization_config.{key}"),
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            known: known.to_owned(),
        }
    }

    /// The value of `key`, unless it is null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn check_known(&self) -> Result<(), ModelError> {
        let known = [
            "quant_method",
            FOUR_BIT,
            EIGHT_BIT,
            QUANT_TYPE,
            COMPUTE,
            STORAGE,
            THRESHOLD,
            SKIPPED,
            SIXTEEN_BIT,
        ];
        let known: Vec<&str> = known.into_iter().chain(WITHOUT_EFFECT).collect();
        let is_known =
            |key: &str| known.contains(&key) || matches!(key.strip_prefix('_'), Some(FOUR_BIT | EIGHT_BIT));
        match self.keys.iter().find(|(key, _)| !is_known(key)) {
            Some((key, value)) => Err(self.refuse(key, value, &format!("the settings {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.refuse(key, other, "true, false")),
        }
    }

    /// The word at `key`, or `default`.
    fn word<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::String(word)) => Ok(word),
            Some(other) => Err(self.refuse(key, other, "a word")),
        }
    }

    /// The type that is named at `key`, or the type `default`, if it is one of `known`.
    fn kind(&self, key: &str, default: &str, known: &[(&str, Kind)]) -> Result<Kind, ModelError> {
        let word = self.word(key, default)?;
        match known.iter().find(|(name, _)| *name == word) {
            Some((_, kind)) => Ok(*kind),
            None => {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                Err(self.refuse(key, &word.into(), &names.join(", ")))
            }
        }
    }

    fn nf4(&self) -> Result<Scheme, ModelError> {
        let quant_type = self.word(QUANT_TYPE, "fp4")?;
        if quant_type != "nf4" {
            return Err(self.refuse(QUANT_TYPE, &quant_type.into(), "nf4"));
        }
        let floats = [("float32", Kind::Float), ("bfloat16", Kind::BFloat16), ("float16", Kind::Half)];
        let compute = self.kind(COMPUTE, "float32", &floats)?;
        let [float32, bfloat16, float16] = floats;
        let stored = [
            ("uint8", Kind::Uint8),
            ("int8", Kind::Int8),
            float16,
            bfloat16,
            float32,
            ("float64", Kind::Double),
        ];
        Ok(Scheme::Nf4 { compute, storage: self.kind(STORAGE, "uint8", &stored)? })
    }

    fn int8(&self) -> Result<Scheme, ModelError> {
        if self.flag(SIXTEEN_BIT)? {
            return Err(self.refuse(SIXTEEN_BIT, &true.into(), "false"));
        }
        let threshold = match self.get(THRESHOLD) {
            None => 6.0,
            Some(value) => value
                .as_f64()
                .filter(|threshold| *threshold >= 0.0)
                .ok_or_else(|| self.refuse(THRESHOLD, value, "a number that is not negative"))?,
        };
        Ok(Scheme::Int8 { threshold })
    }

    /// As transformers' `should_convert_module` has it. Where nothing is listed, the output projection is skipped.
    fn skipped(&self) -> Result<Vec<Skipped>, ModelError> {
        let Some(list) = self.get(SKIPPED) else { return Ok(vec![self.skip(HEAD)?]) };
        let names = list.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let Some(Some(names)) = names else { return Err(self.refuse(SKIPPED, list, "a list of names")) };
        names.into_iter().map(|name| self.skip(name)).collect()
    }

    fn skip(&self, pattern: &str) -> Result<Skipped, ModelError> {
        match Regex::new(&format!("^(?:{pattern})")) {
            Ok(at_start) => Ok(Skipped { pattern: pattern.to_owned(), at_start }),
            Err(_) => Err(self.refuse(SKIPPED, &pattern.into(), "names and regular expressions")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn parse(value: &Value) -> Result<Config, String> {
        Config::parse(Path::new("config.json"), value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read() {
        let config = parse(&describe_nf4(true, Kind::BFloat16)).unwrap();
        assert_eq!(config.scheme, Scheme::Nf4 { compute: Kind::BFloat16, storage: Kind::Uint8 });
        assert_eq!(parse(&describe_int8(4.5)).unwrap().scheme, Scheme::Int8 { threshold: 4.5 });
        // What transformers 4 wrote before `quant_method`.
        let old = json!({ EIGHT_BIT: true, THRESHOLD: 6 });
        assert!(is_bitsandbytes(&old) && !is_bitsandbytes(&json!({"bits": 4})));
        assert_eq!(parse(&old).unwrap().scheme, Scheme::Int8 { threshold: 6.0 });
        let old = json!({ FOUR_BIT: true, QUANT_TYPE: "nf4" });
        assert_eq!(parse(&old).unwrap().scheme, Scheme::Nf4 { compute: Kind::Float, storage: Kind::Uint8 });
    }

    #[test]
    fn layers_are_skipped_as_transformers_skips_them() {
        let config = parse(&describe_int8(6.0)).unwrap();
        assert!(config.skips(HEAD) && !config.skips("model.layers.0.mlp.up_proj"));
        let mut listed = describe_int8(6.0);
        listed[SKIPPED] = json!(["down_proj", "model.layers.1", r"model\.layers\.\d+\.self_attn\.q"]);
        let config = parse(&listed).unwrap();
        for (name, is_skipped) in [
            (HEAD, false),
            ("model.layers.0.mlp.down_proj", true),
            ("model.layers.0.mlp.up_proj", false),
            ("model.layers.1.mlp.up_proj", true),
            // transformers does not ask for a dot after it.
            ("model.layers.12.mlp.up_proj", true),
            ("model.layers.3.self_attn.q_proj", true),
            ("model.layers.3.self_attn.k_proj", false),
        ] {
            assert_eq!(config.skips(name), is_skipped, "{name}");
        }
        listed[SKIPPED] = json!([]);
        assert!(!parse(&listed).unwrap().skips(HEAD));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (config, key, value) in [
            (describe_nf4(false, Kind::Float), QUANT_TYPE, json!("fp4")),
            (describe_nf4(false, Kind::Float), QUANT_TYPE, json!(null)),
            (describe_nf4(false, Kind::Float), COMPUTE, json!("float64")),
            (describe_nf4(false, Kind::Float), STORAGE, json!("int32")),
            (describe_nf4(false, Kind::Float), "bnb_4bit_blocksize", json!(128)),
            (describe_int8(6.0), SIXTEEN_BIT, json!(true)),
            (describe_int8(6.0), THRESHOLD, json!("high")),
            (describe_int8(6.0), THRESHOLD, json!(-1.0)),
            (describe_int8(6.0), SKIPPED, json!("lm_head")),
            (describe_int8(6.0), SKIPPED, json!(["("])),
            (describe_int8(6.0), FOUR_BIT, json!(true)),
            (describe_nf4(false, Kind::Float), FOUR_BIT, json!(false)),
        ] {
            let mut config = config;
            config[key] = value;
            let error = parse(&config).unwrap_err();
            assert!(error.starts_with(&format!("config.json: `quantization_config.{key}: ")), "{error}");
        }
    }
}
