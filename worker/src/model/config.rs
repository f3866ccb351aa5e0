//! config.json, in the layouts of transformers 4 and 5, with the defaults that transformers fills in.

mod fields;

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Map, Value};
use tch::Kind;

use super::error::ModelError;
use super::family::{self, AttentionBias, Family, Window};
use super::formats::{awq, gptq};
use super::rope::RopeParameters;

pub(super) use fields::Fields;

/// The file's name in a checkpoint folder.
pub const CONFIG_FILE: &str = "config.json";

/// No dimension of a real model comes near; a larger number is a typing mistake.
const LARGEST_DIMENSION: i64 = 1 << 26;
const MOST_LAYERS: i64 = 4096;

/// The hyper-parameters of a decoder. All counts are at least 1.
#[derive(Clone, Debug)]
pub struct Config {
    /// config.json's path, for messages.
    pub file: PathBuf,
    /// What distinguishes the family.
    pub family: &'static Family,
    /// Rows of the embedding.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width inside the feed-forward network.
    pub intermediate_size: i64,
    /// Decoder blocks.
    pub layers: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: i64,
    /// Key and value heads.
    pub kv_heads: i64,
    /// Width of one head; even.
    pub head_dim: i64,
    /// Added to the mean square inside RMSNorm.
    pub norm_eps: f64,
    /// The rotation of queries and keys.
    pub rope: RopeParameters,
    /// The longest context the model was made for, in tokens.
    pub max_positions: i64,
    /// The output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// The query, key and value projections have a bias.
    pub query_key_value_bias: bool,
    /// The attention's output projection has a bias.
    pub attention_output_bias: bool,
    /// The feed-forward projections have a bias.
    pub mlp_bias: bool,
    /// By layer: how many positions back it attends, itself included; `None`: all.
    pub windows: Vec<Option<i64>>,
    /// Beginning-of-sequence token.
    pub bos: Option<i64>,
    /// End-of-sequence tokens.
    pub eos: Vec<i64>,
    /// Padding token.
    pub pad: Option<i64>,
    /// The floating-point type that the weights were saved in.
    pub dtype: Option<Kind>,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// How the linear layers are stored, if not as floating-point matrices.
    pub quantization: Option<Value>,
    /// The file that says it.
    pub quantization_file: PathBuf,
}

impl Config {
    /// Reads `folder/config.json`.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let file = folder.join(CONFIG_FILE);
        if !file.is_file() {
            return Err(ModelError::MissingFile { folder: folder.to_owned(), file: CONFIG_FILE.to_owned() });
        }
        let mut config = Self::read_file(&file)?;
        if config.quantization.is_none()
            && let Some((file, settings)) = beside(folder)?
        {
            (config.quantization_file, config.quantization) = (file, Some(settings));
        }
        Ok(config)
    }

    /// Reads the config.json at `file`, whatever its name.
    pub fn read_file(file: &Path) -> Result<Self, ModelError> {
        let text = fs::read_to_string(file)?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|source| ModelError::Json { file: file.to_owned(), source })?;
        let Value::Object(map) = value else {
            return Err(ModelError::Field {
                file: file.to_owned(),
                field: "(the file)".to_owned(),
                problem: "is not a JSON object".to_owned(),
            });
        };
        Self::from_fields(&Fields { file, prefix: "", map: &map })
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self, ModelError> {
        let family = family::of(fields)?;
        let activation = fields.text("hidden_act")?.unwrap_or("silu");
        if activation != "silu" {
            return Err(fields.unsupported("hidden_act", activation, "silu"));
        }
        let hidden_size = fields.needed_count("hidden_size", LARGEST_DIMENSION)?;
        let layers = fields.needed_count("num_hidden_layers", MOST_LAYERS)?;
        let heads = fields.needed_count("num_attention_heads", LARGEST_DIMENSION)?;
        let kv_heads = if fields.is_null("num_key_value_heads") {
            heads
        } else {
            // A default that cannot be meant is no default.
            let default = family.key_value_heads.filter(|default| heads % default == 0);
            fields.count("num_key_value_heads", LARGEST_DIMENSION)?.or(default).unwrap_or(heads)
        };
        if heads % kv_heads != 0 {
            return Err(fields.wrong(
                "num_key_value_heads",
                format!("is {kv_heads}, which does not divide num_attention_heads ({heads})"),
            ));
        }
        let head_dim = match fields.count("head_dim", LARGEST_DIMENSION)?.or(family.head_dim) {
            Some(head_dim) => head_dim,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => {
                return Err(fields.wrong(
                    "hidden_size",
                    format!("is {hidden_size}, not a multiple of num_attention_heads ({heads}), and there is no `head_dim`"),
                ));
            }
        };
        if head_dim % 2 != 0 {
            return Err(fields.wrong("head_dim", format!("is {head_dim}, expected an even number")));
        }
        let max_positions =
            fields.count("max_position_embeddings", i64::from(i32::MAX))?.unwrap_or(family.max_positions);
        let configured_bias = fields.flag("attention_bias")?.unwrap_or(false);
        let (query_key_value_bias, attention_output_bias) = match family.attention_bias {
            AttentionBias::Never => (false, false),
            AttentionBias::Configured => (configured_bias, configured_bias),
            AttentionBias::QueryKeyValue => (true, false),
        };
        Ok(Self {
            file: fields.file.to_owned(),
            family,
            vocab_size: fields.needed_count("vocab_size", LARGEST_DIMENSION)?,
            hidden_size,
            intermediate_size: fields.needed_count("intermediate_size", LARGEST_DIMENSION)?,
            layers: layers as usize,
            heads,
            kv_heads,
            head_dim,
            norm_eps: norm_eps(fields)?,
            rope: RopeParameters::from_fields(fields, max_positions)?,
            max_positions,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
            query_key_value_bias,
            attention_output_bias,
            mlp_bias: family.mlp_bias && fields.flag("mlp_bias")?.unwrap_or(false),
            windows: windows(fields, family, layers)?,
            bos: if fields.has("bos_token_id") {
                fields.tokens("bos_token_id")?.first().copied()
            } else {
                family.bos
            },
            eos: if fields.has("eos_token_id") {
                fields.tokens("eos_token_id")?
            } else {
                family.eos.into_iter().collect()
            },
            pad: fields.tokens("pad_token_id")?.first().copied(),
            dtype: dtype(fields)?,
            initializer_range: fields.positive("initializer_range")?.unwrap_or(0.02),
            quantization: quantization(fields)?,
            quantization_file: fields.file.to_owned(),
        })
    }

    /// How many query heads share one key and value head.
    pub fn group_size(&self) -> i64 {
        self.heads / self.kv_heads
    }
}

/// How the linear layers are stored, where AutoGPTQ and AutoAWQ said it before config.json did.
fn beside(folder: &Path) -> Result<Option<(PathBuf, Value)>, ModelError> {
    for (name, method) in [("quantize_config.json", gptq::METHOD), ("quant_config.json", awq::METHOD)] {
        let file = folder.join(name);
        if !file.is_file() {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let mut value: Value =
            serde_json::from_str(&text).map_err(|source| ModelError::Json { file: file.clone(), source })?;
        let Some(settings) = value.as_object_mut() else {
            let (field, problem) = ("(the file)".to_owned(), "is not a JSON object".to_owned());
            return Err(ModelError::Field { file, field, problem });
        };
        settings.entry("quant_method").or_insert_with(|| method.into());
        return Ok(Some((file, value)));
    }
    Ok(None)
}

/// How the linear layers are stored, under the name of today or the one that compressed-tensors had first.
fn quantization(fields: &Fields<'_>) -> Result<Option<Value>, ModelError> {
    let given = ["quantization_config", "compression_config"].into_iter().find_map(|field| {
        let is_empty = |value: &&Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
        let value = fields.map.get(field).filter(|value| !is_empty(value))?;
        Some((field, value))
    });
    match given {
        Some((field, value)) if !value.is_object() => {
            Err(fields.wrong(field, format!("is {value}, expected an object")))
        }
        given => Ok(given.map(|(_, value)| value.clone())),
    }
}

/// More than 1 hides every hidden state.
fn norm_eps(fields: &Fields<'_>) -> Result<f64, ModelError> {
    let eps = fields.positive("rms_norm_eps")?.unwrap_or(1e-6);
    if eps > 1.0 {
        return Err(fields.wrong("rms_norm_eps", format!("is {eps:e}, expected a number of at most 1")));
    }
    Ok(eps)
}

fn windows(fields: &Fields<'_>, family: &Family, layers: i64) -> Result<Vec<Option<i64>>, ModelError> {
    /// `sliding_window` where the key is absent, in every family.
    const DEFAULT_WINDOW: i64 = 4096;
    /// `max_window_layers` where the key is absent.
    const DEFAULT_FULL_LAYERS: i64 = 28;
    let window = if fields.is_null("sliding_window") {
        None
    } else {
        Some(fields.count("sliding_window", i64::from(i32::MAX))?.unwrap_or(DEFAULT_WINDOW))
    };
    match family.window {
        Window::Never => Ok(vec![None; layers as usize]),
        Window::Every => Ok(vec![window; layers as usize]),
        Window::ByLayer => {
            let window =
                window.filter(|_| matches!(fields.map.get("use_sliding_window"), Some(Value::Bool(true))));
            let types = match fields.map.get("layer_types") {
                None | Some(Value::Null) => {
                    let first = fields.non_negative("max_window_layers")?.unwrap_or(DEFAULT_FULL_LAYERS);
                    return Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect());
                }
                Some(Value::Array(types)) if types.len() as i64 == layers => types,
                Some(_) => {
                    return Err(
                        fields.wrong("layer_types", format!("is not a list of {layers} names, one a layer"))
                    );
                }
            };
            let mut windows = Vec::with_capacity(types.len());
            for layer_type in types {
                windows.push(match layer_type.as_str() {
                    Some("full_attention") => None,
                    Some("sliding_attention") if window.is_some() => window,
                    Some("sliding_attention") => {
                        return Err(fields.wrong(
                            "layer_types",
                            "names `sliding_attention` layers while `use_sliding_window` is off".to_owned(),
                        ));
                    }
                    _ => {
                        let known = "full_attention, sliding_attention";
                        return Err(fields.unsupported("layer_types", &layer_type.to_string(), known));
                    }
                });
            }
            Ok(windows)
        }
    }
}

/// `dtype` (transformers 5) or `torch_dtype` (4).
fn dtype(fields: &Fields<'_>) -> Result<Option<Kind>, ModelError> {
    let field = if fields.has("dtype") { "dtype" } else { "torch_dtype" };
    match fields.text(field)?.map(|name| name.strip_prefix("torch.").unwrap_or(name)) {
        None | Some("auto") => Ok(None),
        Some("float32" | "float") => Ok(Some(Kind::Float)),
        Some("bfloat16") => Ok(Some(Kind::BFloat16)),
        Some("float16" | "half") => Ok(Some(Kind::Half)),
        Some(other) => Err(fields.unsupported(field, other, "float32, bfloat16, float16")),
    }
}

/// The name of a floating-point type in config.json.
pub fn dtype_name(kind: Kind) -> &'static str {
    match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        Kind::Double => "float64",
        _ => "float32",
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "config_tests.rs"]
mod tests;
