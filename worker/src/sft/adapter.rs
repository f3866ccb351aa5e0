//! LoRA adapters in the files that peft 0.21 reads and writes: `adapter_config.json` and
//! `adapter_model.safetensors` with tensors called
//! `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_nodes::kinds::Lora;
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};
use thiserror::Error;

use super::lora::{A_SUFFIX, B_SUFFIX};
use crate::model::error::ModelError;
use crate::model::{TensorFiles, save};

/// The settings' file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The matrices' file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What peft puts before a layer's name.
const PREFIX: &str = "base_model.model.";
/// `r` where adapter_config.json has none.
const DEFAULT_RANK: i64 = 8;
/// The version of peft whose format this is.
const PEFT_VERSION: &str = "0.21.2";

/// Why an adapter cannot be read or applied.
#[derive(Debug, Error)]
pub enum AdapterError {
    /// A folder without one of the two files.
    #[error("`{}` is not an adapter: `{file}` is missing", folder.display())]
    Missing {
        /// The adapter.
        folder: PathBuf,
        /// The file.
        file: &'static str,
    },
    /// The settings are not JSON.
    #[error("`{}`: not JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A setting is absent or of another type.
    #[error("`{}`: `{key}` is {found}, {expected} is due", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A setting that says the adapter is more than W + scale · B A.
    #[error("`{}`: adapters with `{key}: {value}` are not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A tensor that is neither an A nor a B.
    #[error("`{}`: tensor `{tensor}` is no LoRA matrix of a linear layer", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
    },
    /// An A without a B, or the reverse, or two that do not fit each other.
    #[error("`{}`: the matrices of `{layer}` do not fit each other", path.display())]
    Pair {
        /// The file.
        path: PathBuf,
        /// The layer.
        layer: String,
    },
    /// Matrices of another rank than the settings say: one of the two files is another adapter's.
    #[error("`{}`: `{layer}` has rank {found}, adapter_config.json says {}", path.display(), listed(said))]
    Rank {
        /// The matrices' file.
        path: PathBuf,
        /// The layer.
        layer: String,
        /// Of its matrices.
        found: i64,
        /// `r`, and what `rank_pattern` allows beside it.
        said: Vec<i64>,
    },
    /// A layer that the model has not.
    #[error("the adapter changes `{layer}`, which the model has not")]
    NoLayer {
        /// The layer.
        layer: String,
    },
    /// A layer of another size.
    #[error("the adapter's `{layer}` is {adapter:?}, the model's {model:?}")]
    Shape {
        /// The layer.
        layer: String,
        /// [N, K] of B A.
        adapter: Vec<i64>,
        /// [N, K] of W.
        model: Vec<i64>,
    },
    /// The matrices' file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
    /// A file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl AdapterError {
    /// What to do, as a sentence.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing { .. } => {
                "An adapter is a folder in peft's format: adapter_config.json and adapter_model.safetensors."
            }
            Self::Unsupported { .. } => "Merge it with peft, and start from the merged model.",
            Self::Json { .. } | Self::Setting { .. } | Self::Tensor { .. } => {
                "Fetch the adapter again; the file is damaged, or of another method than LoRA."
            }
            Self::Pair { .. } | Self::Rank { .. } => {
                "Fetch the adapter again; its files do not belong together."
            }
            Self::NoLayer { .. } | Self::Shape { .. } => "Use the model that the adapter was trained on.",
            Self::Model(_) | Self::Torch(_) | Self::Io(_) => return None,
        })
    }
}

fn listed(ranks: &[i64]) -> String {
    let words: Vec<String> = ranks.iter().map(i64::to_string).collect();
    words.join(" or ")
}

/// The two matrices of a layer.
#[derive(Debug)]
pub struct LowRank {
    /// float32 [rank, K].
    pub a: Tensor,
    /// float32 [N, rank].
    pub b: Tensor,
    /// What their product is multiplied with: alpha / rank, or alpha / √rank with `use_rslora`.
    pub scale: f64,
}

impl LowRank {
    /// W + scale · B A, computed in float32, in `weight`'s own type and shape [N, K].
    ///
    /// # Errors
    ///
    /// [`AdapterError::Shape`]; `layer` is for its text.
    pub fn merge(&self, layer: &str, weight: &Tensor) -> Result<Tensor, AdapterError> {
        let update = self.b.f_matmul(&self.a)?.f_mul_scalar(self.scale)?;
        if update.size() != weight.size() {
            return Err(AdapterError::Shape {
                layer: layer.to_owned(),
                adapter: update.size(),
                model: weight.size(),
            });
        }
        Ok(weight.f_to_kind(Kind::Float)?.f_add(&update)?.f_to_kind(weight.kind())?)
    }
}

/// An adapter on disk.
#[derive(Debug)]
pub struct Adapter {
    /// By the layer's name: `model.layers.0.self_attn.q_proj`.
    pub layers: BTreeMap<String, LowRank>,
}

impl Adapter {
    /// Reads the adapter in `folder`.
    ///
    /// # Errors
    ///
    /// A file missing or broken; settings that mean more than W + scale · B A (DoRA, biases, whole modules).
    pub fn read(folder: &Path) -> Result<Self, AdapterError> {
        for file in [CONFIG_FILE, WEIGHTS_FILE] {
            if !folder.join(file).is_file() {
                return Err(AdapterError::Missing { folder: folder.to_owned(), file });
            }
        }
        let settings = Settings::read(&folder.join(CONFIG_FILE))?;
        let path = folder.join(WEIGHTS_FILE);
        let file = TensorFiles::open(&path)?;
        let mut pairs: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
        for name in file.names() {
            let bare = name.strip_prefix(PREFIX);
            let a = bare.and_then(|bare| bare.strip_suffix(A_SUFFIX)).map(|layer| (layer, 0));
            let b = bare.and_then(|bare| bare.strip_suffix(B_SUFFIX)).map(|layer| (layer, 1));
            let Some((layer, place)) = a.or(b) else {
                return Err(AdapterError::Tensor { path, tensor: name.to_owned() });
            };
            let matrix = file.tensor(name)?.f_to_kind(Kind::Float)?;
            pairs.entry(layer.to_owned()).or_default()[place] = Some(matrix);
        }
        let mut layers = BTreeMap::new();
        for (layer, pair) in pairs {
            let [Some(a), Some(b)] = pair else { return Err(AdapterError::Pair { path, layer }) };
            if a.dim() != 2 || b.dim() != 2 || a.size()[0] != b.size()[1] {
                return Err(AdapterError::Pair { path, layer });
            }
            let rank = a.size()[0];
            if !settings.ranks.contains(&rank) {
                return Err(AdapterError::Rank { path, layer, found: rank, said: settings.ranks });
            }
            let scale = settings.scale(rank);
            layers.insert(layer, LowRank { a, b, scale });
        }
        Ok(Self { layers })
    }
}

/// Writes what was trained, A and B by name (`LAYER.lora_A.weight`), as an adapter in `folder`.
pub fn write(folder: &Path, lora: &Lora, trained: &[(String, Tensor)]) -> Result<(), AdapterError> {
    fs::create_dir_all(folder)?;
    let text = serde_json::to_string_pretty(&config(lora)).unwrap_or_default();
    fs::write(folder.join(CONFIG_FILE), text + "\n")?;
    let tensors: Vec<(String, Tensor)> =
        trained.iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor.shallow_clone())).collect();
    Ok(save::write_tensors(&folder.join(WEIGHTS_FILE), &tensors)?)
}

/// peft's settings, all that it needs to put the adapter on the model again. The model's path is left out: it
/// differs from machine to machine.
fn config(lora: &Lora) -> Value {
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
struct Settings {
    /// `r`, then those of `rank_pattern`. The patterns themselves are not matched: each layer's matrices say which
    /// of these is theirs.
    ranks: Vec<i64>,
    alpha: f64,
    rank_stabilised: bool,
}

impl Settings {
    fn read(path: &Path) -> Result<Self, AdapterError> {
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

    fn scale(&self, rank: i64) -> f64 {
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn lora() -> Lora {
        Lora { rank: 2, alpha: 8.0, dropout: 0.0, targets: vec!["q_proj".into()] }
    }

    fn written() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let a = Tensor::ones([2, 4], (Kind::Float, tch::Device::Cpu));
        let b = Tensor::ones([3, 2], (Kind::Float, tch::Device::Cpu));
        let trained =
            [("model.x.q_proj.lora_A.weight".to_owned(), a), ("model.x.q_proj.lora_B.weight".to_owned(), b)];
        write(folder.path(), &lora(), &trained).unwrap();
        folder
    }

    fn change(folder: &Path, key: &str, value: Value) {
        let path = folder.join(CONFIG_FILE);
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
    }

    #[test]
    fn what_is_written_is_read_and_merged() {
        let folder = written();
        let adapter = Adapter::read(folder.path()).unwrap();
        let layer = &adapter.layers["model.x.q_proj"];
        let weight = Tensor::ones([3, 4], (Kind::BFloat16, tch::Device::Cpu));
        let merged = layer.merge("q", &weight).unwrap();
        // 1 + 8 / 2 * 2.
        assert_eq!((merged.kind(), merged.double_value(&[2, 3])), (Kind::BFloat16, 9.0));
        assert!(matches!(layer.merge("q", &weight.tr()), Err(AdapterError::Shape { .. })));
    }

    #[test]
    fn the_rank_stabilised_scale_is_read() {
        let folder = written();
        change(folder.path(), "use_rslora", json!(true));
        let scale = Adapter::read(folder.path()).unwrap().layers["model.x.q_proj"].scale;
        assert!((scale - 8.0 / 2f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn other_methods_are_refused_by_name() {
        for (key, value) in [
            ("use_dora", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("bias", json!("all")),
            ("init_lora_weights", json!("pissa")),
        ] {
            let folder = written();
            change(folder.path(), key, value.clone());
            let message = Adapter::read(folder.path()).unwrap_err().to_string();
            assert!(
                message.ends_with(&format!("adapters with `{key}: {value}` are not supported")),
                "{message}"
            );
        }
    }

    #[test]
    fn the_rank_must_be_the_one_that_is_announced() {
        for (key, value) in [("r", json!(4)), ("r", json!(0)), ("r", Value::Null)] {
            let folder = written();
            change(folder.path(), key, value);
            let error = Adapter::read(folder.path()).unwrap_err();
            assert!(matches!(error, AdapterError::Rank { found: 2, .. }), "{error}");
        }
        let folder = written();
        change(folder.path(), "r", json!(4));
        change(folder.path(), "rank_pattern", json!({ "q_proj": 2 }));
        assert!(Adapter::read(folder.path()).is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = written();
        fs::remove_file(folder.path().join(WEIGHTS_FILE)).unwrap();
        assert!(
            Adapter::read(folder.path())
                .unwrap_err()
                .to_string()
                .contains("`adapter_model.safetensors` is missing")
        );
    }
}
