//! Writes a quantized checkpoint in compressed-tensors' layout, layer by layer: never more than one layer of
//! codes is in memory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use qpipe_kernels::packing;
use serde_json::json;
use tch::{Kind, Tensor};

use super::layers::Layer;
use super::rtn::{Rounded, Rounding};
use crate::model::decoder::HEAD;
use crate::model::formats::compressed_tensors::{StoredScheme, describe, tensors};
use crate::model::{Checkpoint, CheckpointWriter, ModelError, TensorSpec, save};

/// What the checkpoint takes, in bytes of tensors, before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Quantized linear layers.
    pub(super) layers: usize,
    /// All tensors of the source.
    pub(super) before: u64,
    /// All tensors of the result.
    pub(super) after: u64,
    /// Weights of the quantized layers in the source.
    pub(super) linears_before: u64,
    /// Their codes and scales.
    pub(super) linears_after: u64,
}

/// A quantized checkpoint while it is being written.
#[derive(Debug)]
pub(super) struct QuantizedWriter<'a> {
    source: &'a Checkpoint,
    folder: PathBuf,
    scheme: StoredScheme,
    /// Tensors that are copied as they are.
    rest: Vec<String>,
    writer: CheckpointWriter,
    sizes: Sizes,
}

impl<'a> QuantizedWriter<'a> {
    /// Announces all tensors: those of `layers` as `rounding` makes them, the rest of `source` as they are.
    pub(super) fn create(
        source: &'a Checkpoint,
        layers: &[Layer],
        rounding: Rounding,
        folder: &Path,
    ) -> Result<Self, ModelError> {
        let quantized: BTreeSet<&str> = layers.iter().map(|layer| layer.weight.as_str()).collect();
        let rest: Vec<String> =
            source.names().filter(|name| !quantized.contains(name)).map(str::to_owned).collect();
        let mut specs = Vec::with_capacity(rest.len() + 3 * layers.len());
        for name in &rest {
            specs.push(TensorSpec {
                name: name.clone(),
                kind: source.kind(name)?,
                shape: source.shape(name)?,
            });
        }
        let mut sizes = Sizes { layers: layers.len(), before: bytes(&specs), after: 0, ..Sizes::default() };
        for layer in layers {
            let weights = (layer.out_features * layer.in_features) as u64;
            sizes.linears_before += weights * layer.kind.elt_size_in_bytes() as u64;
            let announced = announce(layer, rounding);
            sizes.linears_after += bytes(&announced);
            specs.extend(announced);
        }
        sizes.after = sizes.before + sizes.linears_after;
        sizes.before += sizes.linears_before;
        Ok(Self {
            source,
            folder: folder.to_owned(),
            scheme: rounding.stored(),
            rest,
            writer: CheckpointWriter::create(folder, specs)?,
            sizes,
        })
    }

    /// Copies the tensors that are not quantized.
    pub(super) fn copy_the_rest(&mut self) -> Result<(), ModelError> {
        for name in &self.rest {
            self.writer.put(name, &self.source.tensor(name)?)?;
        }
        Ok(())
    }

    /// Writes `layer`.
    pub(super) fn put(&mut self, layer: &Layer, rounded: &Rounded) -> Result<(), ModelError> {
        let name = |part: &str| format!("{}.{part}", layer.name);
        match self.scheme {
            StoredScheme::W8A8 => self.writer.put(&name(tensors::WEIGHT), &rounded.codes)?,
            StoredScheme::W4A16 { .. } => {
                self.writer.put(&name(tensors::PACKED), &packing::pack(&rounded.codes)?)?;
                let shape = Tensor::from_slice(&[layer.out_features, layer.in_features]);
                self.writer.put(&name(tensors::SHAPE), &shape)?;
            }
        }
        self.writer.put(&name(tensors::SCALE), &rounded.scale)
    }

    /// Ends the files and writes config.json, the tokenizer's files and what else belongs to the checkpoint.
    pub(super) fn finish(self) -> Result<Sizes, ModelError> {
        self.writer.finish()?;
        let patch = json!({ "quantization_config": describe(self.scheme, &[HEAD]) });
        save::copy_companions(&self.source.folder, &self.folder, Some(&patch))?;
        Ok(self.sizes)
    }
}

/// The tensors that `layer` becomes.
fn announce(layer: &Layer, rounding: Rounding) -> Vec<TensorSpec> {
    let spec = |part: &str, kind, shape: [i64; 2]| TensorSpec {
        name: format!("{}.{part}", layer.name),
        kind,
        shape: shape.to_vec(),
    };
    let (rows, columns) = (layer.out_features, layer.in_features);
    let scale = spec(tensors::SCALE, layer.kind, [rows, rounding.groups(columns)]);
    match rounding.stored() {
        StoredScheme::W8A8 => vec![spec(tensors::WEIGHT, Kind::Int8, [rows, columns]), scale],
        StoredScheme::W4A16 { .. } => vec![
            spec(tensors::PACKED, Kind::Int, [rows, packing::words(columns)]),
            TensorSpec {
                name: format!("{}.{}", layer.name, tensors::SHAPE),
                kind: Kind::Int64,
                shape: vec![2],
            },
            scale,
        ],
    }
}

fn bytes(specs: &[TensorSpec]) -> u64 {
    let bytes_of =
        |spec: &TensorSpec| spec.shape.iter().product::<i64>() as u64 * spec.kind.elt_size_in_bytes() as u64;
    specs.iter().map(bytes_of).sum()
}
