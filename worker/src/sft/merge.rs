//! `sft-merge`: W + scale · B A, computed in float32, written in the checkpoint's own type.

use qpipe_nodes::kinds::SftMerge;
use serde_json::json;
use tch::Tensor;

use super::adapter::Adapter;
use super::adapter_error::AdapterError;
use super::error::SftError;
use crate::context::{Context, Facts};
use crate::error::ActionError;
use crate::model::{Checkpoint, TensorSpec, save};

/// Runs an `sft-merge` action.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    let SftMerge {} = context.params()?;
    let folder = context.input("model")?;
    let why = "merging into its coarse weights would round the adapter away";
    let checkpoint = super::open_unquantized(folder, why)?;
    let adapter = Adapter::read(context.input("adapter")?).map_err(SftError::from)?;
    for layer in adapter.layers.keys() {
        if !checkpoint.has(&weight_name(layer)) {
            return Err(SftError::from(AdapterError::NoLayer { layer: layer.clone() }).into());
        }
    }
    let total = checkpoint.names().count() as u64;
    let mut specs = Vec::with_capacity(total as usize);
    for name in checkpoint.names() {
        specs.push(TensorSpec {
            name: name.to_owned(),
            kind: checkpoint.kind(name)?,
            shape: checkpoint.shape(name)?,
        });
    }
    let mut done = 0;
    let produce = |spec: &TensorSpec| -> Result<Tensor, ActionError> {
        context.check_stop()?;
        let tensor = merged(&checkpoint, &adapter, &spec.name)?;
        done += 1;
        context.progress(done, total, "tensors", None);
        Ok(tensor)
    };
    save::write_checkpoint(&context.out()?, specs, produce, folder, None)?;
    Ok(Facts::from([("merged_layers".to_owned(), json!(adapter.layers.len()))]))
}

fn merged(checkpoint: &Checkpoint, adapter: &Adapter, name: &str) -> Result<Tensor, SftError> {
    let tensor = checkpoint.tensor(name)?;
    match name.strip_suffix(".weight").and_then(|layer| adapter.layers.get_key_value(layer)) {
        Some((layer, matrices)) => Ok(matrices.merge(layer, &tensor)?),
        None => Ok(tensor),
    }
}

fn weight_name(layer: &str) -> String {
    format!("{layer}.weight")
}
