//! Goes through the decoder blocks: loads one, has it quantized, keeps the result as a unit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fs_err as fs;
use serde_json::Value;
use tch::Tensor;

use super::layers::{Layer, check_finite};
use super::method::{Block, DAMPING, FALLBACK, Linear, Method, Quantized};
use super::outside::{Fate, Outside};
use crate::context::Context;
use crate::error::ActionError;
use crate::model::block::{INPUT_NORM, MLP_NORM, Part};
use crate::model::decoder::block_name;
use crate::model::{Checkpoint, TensorFiles, save};

/// The quantized blocks of a model, on disk.
#[derive(Debug)]
pub(super) struct Units {
    /// Safetensors files: one a block, then one of what is outside the blocks.
    pub(super) files: Vec<PathBuf>,
    /// Tensors of the source that are not to be copied: the units hold what became of them.
    pub(super) replaced: Vec<String>,
    /// Quantized linear layers.
    pub(super) layers: usize,
    /// By layer.
    pub(super) notes: Vec<(String, Value)>,
}

impl Units {
    /// The layers whose notes say that they were rounded to nearest instead.
    pub(super) fn fallbacks(&self) -> Vec<String> {
        let is_fallback = |note: &Value| !note[FALLBACK].is_null();
        self.notes.iter().filter(|(_, note)| is_fallback(note)).map(|(name, _)| name.clone()).collect()
    }
}

impl Units {
    /// In how many layers more damping than `asked` was needed, in words, and how much at most. `None`: in none.
    pub(super) fn damping_raised(&self, asked: Option<f64>) -> Option<String> {
        // Notes have six digits.
        let most_asked = asked? + 1e-6;
        let used = self.notes.iter().filter_map(|(_, note)| note[DAMPING].as_f64());
        let raised: Vec<f64> = used.filter(|damping| *damping > most_asked).collect();
        let most = raised.iter().copied().reduce(f64::max)?;
        Some(format!("to {most} in {} of {} layers", raised.len(), self.layers))
    }
}

/// Quantizes `layers`, which are all linear layers of all blocks in order, and what `outside` takes of the rest.
pub(super) fn quantize(
    checkpoint: &Checkpoint,
    layers: Vec<Layer>,
    method: &mut dyn Method,
    outside: &Outside,
    context: &Context<'_>,
) -> Result<Units, ActionError> {
    let blocks = checkpoint.config.layers;
    let mut units =
        Units { files: Vec::new(), replaced: Vec::new(), layers: layers.len(), notes: Vec::new() };
    let mut layers = layers.into_iter().peekable();
    let unit_name = |index: usize| format!("block-{index:05}");
    let last_open = (0..blocks).rev().find(|&index| finished(context, &unit_name(index)).is_none());
    for index in 0..blocks {
        context.check_stop()?;
        let of_block: Vec<Layer> = layers.by_ref().take(Part::ALL.len()).collect();
        let vectors = vectors_of(checkpoint, index);
        units.replaced.extend(of_block.iter().map(|layer| layer.weight.clone()));
        let name = unit_name(index);
        let file = match finished(context, &name) {
            Some(file) => file,
            None => {
                let block = load(checkpoint, of_block, &vectors, context)?;
                publish(context, &name, method.quantize(block)?)?
            }
        };
        let held = TensorFiles::open(&file)?;
        units.replaced.extend(vectors.into_iter().filter(|vector| held.has(vector)));
        // Nothing needs what comes out of the last one.
        if last_open.is_some_and(|last| index < last) {
            method.passed(index, held)?;
        }
        units.notes.extend(notes(context, &name)?);
        units.files.push(file);
        context.progress(index as u64 + 1, blocks as u64, "layers", None);
    }
    quantize_outside(checkpoint, outside, context, &mut units)?;
    Ok(units)
}

/// What becomes of the tensors outside the blocks.
fn quantize_outside(
    checkpoint: &Checkpoint,
    outside: &Outside,
    context: &Context<'_>,
    units: &mut Units,
) -> Result<(), ActionError> {
    let in_blocks = |name: &str| name.starts_with("model.layers.");
    let mut tensors = Vec::new();
    for name in checkpoint.names().filter(|name| !in_blocks(name)) {
        let read =
            || -> Result<Tensor, ActionError> { Ok(checkpoint.tensor(name)?.f_to_device(context.device())?) };
        match outside.fate(name, read)? {
            Fate::Kept => {
                check_finite(name, &read()?)?;
                continue;
            }
            Fate::Dropped => {}
            Fate::Replaced(made) => tensors.extend(made),
        }
        units.replaced.push(name.to_owned());
    }
    if !tensors.is_empty() {
        let quantized = Quantized { tensors, notes: BTreeMap::new() };
        units.files.push(publish(context, "outside", quantized)?);
    }
    Ok(())
}

fn load(
    checkpoint: &Checkpoint,
    layers: Vec<Layer>,
    vectors: &[String],
    context: &Context<'_>,
) -> Result<Block, ActionError> {
    let read = |name: &str| -> Result<Tensor, ActionError> {
        let tensor = checkpoint.tensor(name)?.f_to_device(context.device())?;
        check_finite(name, &tensor)?;
        Ok(tensor)
    };
    let linears = layers
        .into_iter()
        .map(|layer| Ok(Linear { weight: read(&layer.weight)?, layer }))
        .collect::<Result<_, ActionError>>()?;
    let vectors =
        vectors.iter().map(|name| Ok((name.clone(), read(name)?))).collect::<Result<_, ActionError>>()?;
    Ok(Block { linears, vectors })
}

/// The norms of a block that stand before its linear layers, and the biases of these.
fn vectors_of(checkpoint: &Checkpoint, index: usize) -> Vec<String> {
    let block = block_name(index);
    let norms = [INPUT_NORM, MLP_NORM].map(|norm| format!("{block}.{norm}.weight"));
    let biases = Part::ALL.map(|part| format!("{block}.{part}.bias"));
    norms.into_iter().chain(biases).filter(|name| checkpoint.has(name)).collect()
}

fn tensors_unit(name: &str) -> String {
    format!("{name}.safetensors")
}

fn notes_unit(name: &str) -> String {
    format!("{name}.json")
}

/// The unit `name`, if an earlier attempt finished it: the tensors come last.
fn finished(context: &Context<'_>, name: &str) -> Option<PathBuf> {
    context.unit(&notes_unit(name))?;
    context.unit(&tensors_unit(name))
}

fn publish(context: &Context<'_>, name: &str, quantized: Quantized) -> Result<PathBuf, ActionError> {
    let notes = serde_json::to_vec(&quantized.notes).map_err(std::io::Error::from)?;
    context.publish_unit(&notes_unit(name), |path| Ok(fs::write(path, &notes)?))?;
    let tensors = tensors_unit(name);
    context.publish_unit(&tensors, |path| Ok(save::write_tensors(path, &quantized.tensors)?))?;
    context
        .unit(&tensors)
        .ok_or_else(|| ActionError::from(std::io::Error::other(format!("unit `{tensors}` vanished"))))
}

fn notes(context: &Context<'_>, name: &str) -> Result<BTreeMap<String, Value>, ActionError> {
    let Some(file) = context.unit(&notes_unit(name)) else { return Ok(BTreeMap::new()) };
    serde_json::from_slice(&fs::read(&file)?)
        .map_err(|error| ActionError::from(std::io::Error::other(format!("{}: {error}", file.display()))))
}
