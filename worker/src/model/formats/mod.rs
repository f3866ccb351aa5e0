//! How linear layers are stored in a checkpoint: one module a format.

pub mod awq;
pub mod bitsandbytes;
pub mod compressed_tensors;
pub mod gptq;
pub mod qpipe_w4a8;
mod quantized;

use qpipe_kernels::QuantizedWeight;
use tch::Kind;

use super::checkpoint::Checkpoint;
use super::error::ModelError;
use super::linear::{Dense, Linear, LinearSpec, LoadOptions};

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
    match read_weight(checkpoint, spec)? {
        Some(weight) => Ok(Box::new(Quantized::prepare(checkpoint, spec, weight, options)?)),
        None => Ok(Box::new(Dense::load(checkpoint, spec, options)?)),
    }
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
    match config.get("quant_method").and_then(serde_json::Value::as_str) {
        None if bitsandbytes::is_bitsandbytes(config) => Some(bitsandbytes::METHOD),
        method => Some(method.unwrap_or_default()),
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
