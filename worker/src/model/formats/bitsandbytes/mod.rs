//! bitsandbytes' checkpoints, as transformers saves and loads them: NF4 ([`nf4`]) and LLM.int8() ([`int8`]).
//!
//! FP4, nested blocks of another size than 256 and weights kept in 16 bits are refused by name.

mod config;
pub mod int8;
pub mod nf4;

use qpipe_kernels::QuantizedWeight;
use serde_json::Value;
use tch::Device;

use self::config::{Config, Scheme};
use crate::model::checkpoint::Checkpoint;
use crate::model::error::ModelError;
use crate::model::linear::LinearSpec;

pub use config::{describe_int8, describe_nf4, is_bitsandbytes};

/// `quant_method` in config.json.
pub const METHOD: &str = "bitsandbytes";

/// The layer `spec` of `checkpoint`; `None` where its `quantization_config` leaves it in floating point.
///
/// # Errors
///
/// Settings that are not supported, tensors that are missing, whose type or shape is not what config.json calls for, or
/// that contradict each other.
pub fn read_linear(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    config: &Value,
) -> Result<Option<QuantizedWeight>, ModelError> {
    let config = Config::parse(&checkpoint.config.file, config)?;
    if config.skips(spec.name) {
        return Ok(None);
    }
    let codes = match config.scheme {
        Scheme::Nf4 { compute, storage } => nf4::read(checkpoint, spec, compute, storage)?,
        Scheme::Int8 { threshold } => int8::read(checkpoint, spec, threshold)?,
    };
    let bias = if spec.bias {
        let name = format!("{}.bias", spec.name);
        Some(checkpoint.float_tensor(&name, &[spec.out_features], checkpoint.kind(&name)?, Device::Cpu)?)
    } else {
        None
    };
    let weight = QuantizedWeight::new(codes, bias, spec.out_features, spec.in_features);
    weight.map(Some).map_err(|error| ModelError::Quantization {
        file: checkpoint.config.file.clone(),
        problem: format!("`{}`: {error}", spec.name),
    })
}
