//! qpipe's own format for 4-bit weights and int8 activations, for which the field has none that keeps four
//! bits on disk. docs/formats/qpipe-w4a8.md describes it for other readers; the arithmetic is
//! [`qpipe_kernels::progressive`]'s.
//!
//! | tensor of a linear layer [N, K], g input channels a group | |
//! |---|---|
//! | `weight_packed` i32 [N, ⌈K/8⌉] | codes from -8 to 7, packed as compressed-tensors packs them |
//! | `group_scale` i8 [N, K/g] | from 1 to 16 |
//! | `group_zero` i8 [N, K/g] | a code |
//! | `channel_scale` bf16 [N, 1] | |
//!
//! The embedding and the output projection may be in int8, for floating-point activations: `weight` i8 [N, K],
//! `weight_scale`, floating point [N, 1].
//!
//! config.json: `"quantization_config": {"quant_method": "qpipe-w4a8", "version": 1, "group_size": g,
//! "ignore": [names of layers in floating point], "int8": [names of layers in int8, absent where there are none]}`.

use std::path::Path;

use qpipe_kernels::{Codes, QuantizedWeight, packing};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Kind, TchError, Tensor};

use super::expect_tensor;
use crate::model::checkpoint::Checkpoint;
use crate::model::error::ModelError;
use crate::model::linear::LinearSpec;

/// `quant_method` in config.json.
pub const METHOD: &str = "qpipe-w4a8";
/// The one version of the format.
const VERSION: u32 = 1;
/// The type of channels' scales: the range of f32 in 16 bits. Codes are rounded under the scale as stored, so
/// its eight bits cost nothing.
pub const SCALE_KIND: Kind = Kind::BFloat16;

const PACKED: &str = "weight_packed";
const GROUP_SCALE: &str = "group_scale";
const GROUP_ZERO: &str = "group_zero";
const CHANNEL_SCALE: &str = "channel_scale";
const BIAS: &str = "bias";
const INT8_WEIGHT: &str = "weight";
const INT8_SCALE: &str = "weight_scale";
const INT8_KEY: &str = "int8";

/// `quantization_config`. What is not known is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(rename = "quant_method")]
    _quant_method: String,
    version: u32,
    group_size: i64,
    #[serde(default)]
    ignore: Vec<String>,
    #[serde(default)]
    int8: Vec<String>,
}

impl Config {
    fn parse(file: &Path, value: &Value) -> Result<Self, ModelError> {
        let config = Self::deserialize(value).map_err(|error| ModelError::Quantization {
            file: file.to_owned(),
            problem: format!("`quantization_config`: {error}"),
        })?;
        let unsupported = |field: &str, value: String, known: &str| ModelError::Unsupported {
            file: file.to_owned(),
            field: format!("quantization_config.{field}"),
            value,
            known: known.to_owned(),
        };
        if config.version != VERSION {
            return Err(unsupported("version", config.version.to_string(), &VERSION.to_string()));
        }
        if config.group_size < 1 {
            return Err(unsupported("group_size", config.group_size.to_string(), "a positive number"));
        }
        Ok(config)
    }
}

/// The `quantization_config` of a checkpoint whose linear layers, all but `ignore`, are in this format.
pub fn describe(group: i64, ignore: &[&str]) -> Value {
    json!({ "quant_method": METHOD, "version": VERSION, "group_size": group, "ignore": ignore })
}

/// The tensors of the layer `name`: codes i8 [N, K] from -8 to 7, scales and zeros i8 [N, K/g], channels'
/// scales [N, 1] of [`SCALE_KIND`].
///
/// # Errors
///
/// Only libtorch's.
pub fn store(
    name: &str,
    codes: &Tensor,
    group_scale: Tensor,
    group_zero: Tensor,
    channel_scale: Tensor,
) -> Result<Vec<(String, Tensor)>, TchError> {
    let named = |part: &str, tensor: Tensor| (format!("{name}.{part}"), tensor);
    Ok(vec![
        named(PACKED, packing::pack(codes)?),
        named(GROUP_SCALE, group_scale),
        named(GROUP_ZERO, group_zero),
        named(CHANNEL_SCALE, channel_scale),
    ])
}

/// Adds to `config`, as [`describe`] makes it, that the embedding or the output projection `layer` is in int8.
pub fn describe_outside(config: &mut Value, layer: &str) {
    if let Some(ignore) = config["ignore"].as_array_mut() {
        ignore.retain(|name| name != layer);
    }
    match config[INT8_KEY].as_array_mut() {
        Some(layers) => layers.push(json!(layer)),
        None => config[INT8_KEY] = json!([layer]),
    }
}

/// The tensors of `layer` in int8: codes i8 [N, K], scales, floating point [N, 1].
pub fn store_outside(layer: &str, codes: &Tensor, scale: Tensor) -> Vec<(String, Tensor)> {
    let named = |part: &str, tensor: Tensor| (format!("{layer}.{part}"), tensor);
    vec![named(INT8_WEIGHT, codes.shallow_clone()), named(INT8_SCALE, scale)]
}

/// The embedding `spec` of `checkpoint`; `None` where its `quantization_config` leaves it in floating point.
///
/// # Errors
///
/// Tensors that are missing, or whose type or shape is not what config.json calls for.
pub fn read_embedding(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    config: &Value,
) -> Result<Option<QuantizedWeight>, ModelError> {
    let config = Config::parse(&checkpoint.config.file, config)?;
    let is_int8 = config.int8.iter().any(|name| name == spec.name);
    if is_int8 { read_int8(checkpoint, spec).map(Some) } else { Ok(None) }
}

fn read_int8(checkpoint: &Checkpoint, spec: &LinearSpec<'_>) -> Result<QuantizedWeight, ModelError> {
    let (out_features, in_features) = (spec.out_features, spec.in_features);
    let name = |part: &str| format!("{}.{part}", spec.name);
    expect_tensor(checkpoint, &name(INT8_WEIGHT), &[out_features, in_features], Kind::Int8)?;
    let codes = Codes::Int8A16 {
        weight: checkpoint.tensor(&name(INT8_WEIGHT))?,
        scale: floats(checkpoint, &name(INT8_SCALE), &[out_features, 1])?,
    };
    let bias = if spec.bias { Some(floats(checkpoint, &name(BIAS), &[out_features])?) } else { None };
    QuantizedWeight::new(codes, bias, out_features, in_features).map_err(|error| ModelError::Quantization {
        file: checkpoint.config.file.clone(),
        problem: format!("`{}`: {error}", spec.name),
    })
}

/// The floating-point tensor `name`, in the type that it is stored in.
fn floats(checkpoint: &Checkpoint, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
    checkpoint.float_tensor(name, shape, checkpoint.kind(name)?, tch::Device::Cpu)
}

/// The layer `spec` of `checkpoint`; `None` where its `quantization_config` leaves it in floating point.
///
/// # Errors
///
/// Tensors that are missing, whose type or shape is not what config.json calls for, or whose groups leave
/// int8.
pub fn read_linear(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    config: &Value,
) -> Result<Option<QuantizedWeight>, ModelError> {
    let file = &checkpoint.config.file;
    let config = Config::parse(file, config)?;
    if config.ignore.iter().any(|name| name == spec.name) {
        return Ok(None);
    }
    if config.int8.iter().any(|name| name == spec.name) {
        return read_int8(checkpoint, spec).map(Some);
    }
    let (out_features, in_features, group) = (spec.out_features, spec.in_features, config.group_size);
    let wrong = |problem: String| ModelError::Quantization { file: file.clone(), problem };
    if in_features % group != 0 {
        return Err(wrong(format!(
            "`{}` has {in_features} input channels, which are not a multiple of the group size {group}",
            spec.name
        )));
    }
    let read = |part: &str, shape: &[i64], kind: Kind| {
        let name = format!("{}.{part}", spec.name);
        expect_tensor(checkpoint, &name, shape, kind)?;
        checkpoint.tensor(&name)
    };
    let groups = [out_features, in_features / group];
    let codes = Codes::Progressive {
        packed: read(PACKED, &[out_features, packing::words(in_features)], Kind::Int)?,
        group_scale: read(GROUP_SCALE, &groups, Kind::Int8)?,
        group_zero: read(GROUP_ZERO, &groups, Kind::Int8)?,
        channel_scale: read(CHANNEL_SCALE, &[out_features, 1], SCALE_KIND)?,
        group,
    };
    let bias = format!("{}.{BIAS}", spec.name);
    let bias = if spec.bias { Some(floats(checkpoint, &bias, &[out_features])?) } else { None };
    let weight = QuantizedWeight::new(codes, bias, out_features, in_features);
    weight.map(Some).map_err(|error| wrong(format!("`{}`: {error}", spec.name)))
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
        let config = parse(&describe(64, &["lm_head"])).unwrap();
        assert_eq!((config.version, config.group_size), (1, 64));
        assert_eq!(config.ignore, ["lm_head"]);
        assert!(config.int8.is_empty());

        let mut config = describe(64, &["lm_head"]);
        describe_outside(&mut config, "model.embed_tokens");
        describe_outside(&mut config, "lm_head");
        let config = parse(&config).unwrap();
        assert!(config.ignore.is_empty());
        assert_eq!(config.int8, ["model.embed_tokens", "lm_head"]);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (key, value, expected) in [
            ("version", json!(2), "`quantization_config.version: 2` is not supported (known: 1)"),
            ("group_size", json!(0), "`quantization_config.group_size: 0` is not supported"),
            ("symmetric", json!(true), "unknown field `symmetric`"),
        ] {
            let mut config = describe(128, &[]);
            config[key] = value;
            let error = parse(&config).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
