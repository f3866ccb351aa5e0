//! LoRA adapters in the files that peft 0.21 reads and writes: `adapter_config.json` and
//! `adapter_model.safetensors` with tensors called
//! `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use qpipe_nodes::kinds::Lora;
use tch::{Kind, Tensor};

use super::adapter_error::AdapterError;
use super::adapter_settings::{self, Settings};
use super::lora::{A_SUFFIX, B_SUFFIX};
use crate::model::{TensorFiles, save};

/// The settings' file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The matrices' file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What peft puts before a layer's name.
const PREFIX: &str = "base_model.model.";

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
    let text = serde_json::to_string_pretty(&adapter_settings::describe(lora)).unwrap_or_default();
    fs::write(folder.join(CONFIG_FILE), text + "\n")?;
    let tensors: Vec<(String, Tensor)> =
        trained.iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor.shallow_clone())).collect();
    Ok(save::write_tensors(&folder.join(WEIGHTS_FILE), &tensors)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::{Value, json};

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
