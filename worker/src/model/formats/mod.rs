//! How linear layers are stored in a checkpoint: one module a format.

pub mod awq;
pub mod bitsandbytes;
pub mod compressed_tensors;
pub mod gptq;
pub mod qpipe_w4a8;
mod quantized;

use std::path::Path;

use qpipe_kernels::QuantizedWeight;
use serde_json::Value;
use tch::Kind;

use super::checkpoint::Checkpoint;
use super::error::ModelError;
use super::linear::{Dense, Linear, LinearSpec, LoadOptions};
use super::ordered::multiplied_only;

pub use quantized::Quantized;

/// `quant_method` of every format.
const METHODS: [&str; 5] =
    [awq::METHOD, bitsandbytes::METHOD, compressed_tensors::METHOD, gptq::METHOD, qpipe_w4a8::METHOD];

/// The linear layer `spec`, however `checkpoint` stores it.
pub fn load_linear(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    options: &LoadOptions,
) -> Result<Box<dyn Linear>, ModelError> {
    let linear: Box<dyn Linear> = match read_weight(checkpoint, spec)? {
        Some(weight) => Box::new(Quantized::prepare(checkpoint, spec, weight, options)?),
        None => multiplied_only(Dense::load(checkpoint, spec, options)?)?,
    };
    checkpoint.tensors().let_go(&format!("{}.", spec.name));
    Ok(linear)
}

/// The codes of the linear layer `spec`; `None` where `checkpoint` stores it in floating point.
pub fn read_weight(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
) -> Result<Option<QuantizedWeight>, ModelError> {
    let Some(config) = checkpoint.quantization_config() else { return Ok(None) };
    match quantization_method(checkpoint).unwrap_or_default() {
        awq::METHOD => awq::read_linear(checkpoint, spec, config),
        bitsandbytes::METHOD => bitsandbytes::read_linear(checkpoint, spec, config),
        compressed_tensors::METHOD => {
            let config = compressed_tensors::QuantizationConfig::parse(&checkpoint.config.file, config)?;
            compressed_tensors::read_linear(checkpoint, spec, &config)
        }
        gptq::METHOD => gptq::read_linear(checkpoint, spec, config),
        qpipe_w4a8::METHOD => qpipe_w4a8::read_linear(checkpoint, spec, config),
        other => Err(ModelError::Unsupported {
            file: checkpoint.config.file.clone(),
            field: "quantization_config.quant_method".to_owned(),
            value: other.to_owned(),
            known: METHODS.join(", "),
        }),
    }
}

/// The embedding `spec` as `checkpoint` stores it in few bits; `None`: in floating point.
pub fn read_embedding(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
) -> Result<Option<QuantizedWeight>, ModelError> {
    let Some(config) = checkpoint.quantization_config() else { return Ok(None) };
    match quantization_method(checkpoint).unwrap_or_default() {
        compressed_tensors::METHOD => {
            let config = compressed_tensors::QuantizationConfig::parse(&checkpoint.config.file, config)?;
            compressed_tensors::read_embedding(checkpoint, spec, &config)
        }
        qpipe_w4a8::METHOD => qpipe_w4a8::read_embedding(checkpoint, spec, config),
        // The other formats quantize linear layers only.
        _ => Ok(None),
    }
}

/// The name of the format that `checkpoint`'s linear layers are in, if config.json says that they are quantized.
pub fn quantization_method(checkpoint: &Checkpoint) -> Option<&str> {
    let config = checkpoint.quantization_config()?;
    match config.get("quant_method").and_then(Value::as_str) {
        None if bitsandbytes::is_bitsandbytes(config) => Some(bitsandbytes::METHOD),
        method => Some(method.unwrap_or_default()),
    }
}

/// An error if `config`, the `quantization_config` of the config.json at `file`, sets what is in none of the lists of
/// `known` settings: passed over, it could mean other numbers. Null, false and empty settings set nothing.
fn expect_known(file: &Path, config: &Value, known: &[&[&str]]) -> Result<(), ModelError> {
    let sets = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    let is_known = |key: &String| known.iter().any(|list| list.contains(&key.as_str()));
    let unknown = config.as_object().into_iter().flatten().find(|(key, value)| sets(value) && !is_known(key));
    match unknown {
        None => Ok(()),
        Some((key, value)) => Err(ModelError::Unsupported {
            file: file.to_owned(),
            field: format!("quantization_config.{key}"),
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            known: "null".to_owned(),
        }),
    }
}

/// An error unless the tensor `name` has `shape` and `kind`.
fn expect_tensor(checkpoint: &Checkpoint, name: &str, shape: &[i64], kind: Kind) -> Result<(), ModelError> {
    checkpoint.expect_shape(name, shape)?;
    let found = checkpoint.kind(name)?;
    if found == kind {
        return Ok(());
    }
    Err(ModelError::TensorType {
        file: checkpoint.file_of(name).to_owned(),
        tensor: name.to_owned(),
        expected: format!("{kind:?}"),
        found: format!("{found:?}"),
    })
}
