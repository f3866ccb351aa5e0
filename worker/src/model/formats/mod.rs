//! How linear layers are stored in a checkpoint.

use super::checkpoint::Checkpoint;
use super::error::ModelError;
use super::linear::{Dense, Linear, LinearSpec, LoadOptions};

/// The linear layer `spec`, however `checkpoint` stores it.
pub fn load_linear(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    options: &LoadOptions,
) -> Result<Box<dyn Linear>, ModelError> {
    match checkpoint.quantization_config() {
        None => Ok(Box::new(Dense::load(checkpoint, spec, options)?)),
        Some(config) => Err(ModelError::Unsupported {
            file: checkpoint.config.file.clone(),
            field: "quantization_config.quant_method".to_owned(),
            value: config.get("quant_method").and_then(|name| name.as_str()).unwrap_or("").to_owned(),
            known: String::new(),
        }),
    }
}
