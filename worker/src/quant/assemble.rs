//! Puts a quantized checkpoint together from the blocks' units and what of the source stays as it is: never
//! more than one tensor is in memory.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::blocks::Units;
use crate::model::{Checkpoint, CheckpointWriter, ModelError, TensorFiles, TensorSpec, save};

/// What the checkpoint takes, in bytes of tensors, before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// All tensors of the source.
    pub(super) before: u64,
    /// All tensors of the result.
    pub(super) after: u64,
    /// The tensors of the source that were replaced.
    pub(super) linears_before: u64,
    /// What took their place.
    pub(super) linears_after: u64,
}

/// Writes the checkpoint into `folder`, its config.json with the `quantization_config` given.
pub(super) fn assemble(
    source: &Checkpoint,
    units: &Units,
    quantization_config: &Value,
    folder: &Path,
) -> Result<Sizes, ModelError> {
    let replaced: BTreeSet<&str> = units.replaced.iter().map(String::as_str).collect();
    let mut sizes = Sizes::default();
    let mut specs = Vec::new();
    for name in source.names() {
        let spec = TensorSpec { name: name.to_owned(), kind: source.kind(name)?, shape: source.shape(name)? };
        sizes.before += spec.bytes();
        if replaced.contains(name) {
            sizes.linears_before += spec.bytes();
        } else {
            sizes.after += spec.bytes();
            specs.push(spec);
        }
    }
    let kept = specs.len();
    let files: Vec<TensorFiles> =
        units.files.iter().map(|file| TensorFiles::open(file)).collect::<Result<_, _>>()?;
    for file in &files {
        for name in file.names() {
            let spec = TensorSpec { name: name.to_owned(), kind: file.kind(name)?, shape: file.shape(name)? };
            sizes.linears_after += spec.bytes();
            specs.push(spec);
        }
    }
    sizes.after += sizes.linears_after;

    let names: Vec<String> = specs[..kept].iter().map(|spec| spec.name.clone()).collect();
    let mut writer = CheckpointWriter::create(folder, specs)?;
    for name in &names {
        writer.put(name, &source.tensor(name)?)?;
    }
    for file in &files {
        for name in file.names() {
            writer.put(name, &file.tensor(name)?)?;
        }
    }
    writer.finish()?;
    let patch = json!({ "quantization_config": quantization_config });
    save::copy_companions(&source.folder, folder, Some(&patch))?;
    Ok(sizes)
}
