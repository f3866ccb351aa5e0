//! What a method is to the rest: the weights of one decoder block in, the tensors of its format out.

use std::collections::BTreeMap;

use serde_json::Value;
use tch::Tensor;

use super::error::QuantizeError;
use super::layers::Layer;
use crate::context::Facts;
use crate::model::block::Part;

/// The key of a layer's note that says why it was rounded to nearest and not by the method.
pub(super) const FALLBACK: &str = "fallback";
/// The note that says with how much damping a layer's second moments were factorized.
pub(super) const DAMPING: &str = "damping";

/// What the records of methods say of activations that are rounded by compressed-tensors' dynamic rule.
pub(super) const DYNAMIC_ACTIVATIONS: &str = "dynamic: largest magnitude of the token / 127.5";
/// What they say of activations that are not rounded.
pub(super) const FLOAT_ACTIVATIONS: &str = "as they are";

/// A linear layer of a block with its weight.
#[derive(Debug)]
pub(super) struct Linear {
    /// Name, shape, type.
    pub(super) layer: Layer,
    /// [N, K], floating point, on the device of the action; every value is finite.
    pub(super) weight: Tensor,
}

/// The weights of one decoder block.
#[derive(Debug)]
pub(super) struct Block {
    /// In the order of [`Part::ALL`].
    pub(super) linears: Vec<Linear>,
    /// The weights of its norms and the biases of its linear layers by their names in the checkpoint, on the
    /// device of the action. Methods that move scale between layers change them.
    pub(super) vectors: BTreeMap<String, Tensor>,
}

impl Block {
    /// The linear layer `part`.
    pub(super) fn linear(&self, part: Part) -> &Linear {
        &self.linears[part.place()]
    }

    /// The vector `figure` (`weight`, `bias`) of `part` (`input_layernorm`), with its full name.
    pub(super) fn vector(&self, part: &str, figure: &str) -> Option<(&str, &Tensor)> {
        let suffix = format!(".{part}.{figure}");
        let mut vectors = self.vectors.iter().map(|(name, vector)| (name.as_str(), vector));
        vectors.find(|(name, _)| name.ends_with(&suffix))
    }
}

/// What a block becomes.
#[derive(Debug, Default)]
pub(super) struct Quantized {
    /// By full name. A linear layer's floating-point weight goes; a vector's tensor takes the place of the
    /// source's.
    pub(super) tensors: Vec<(String, Tensor)>,
    /// What is worth knowing of a layer, by its name: a fallback, the damping that was needed.
    pub(super) notes: BTreeMap<String, Value>,
}

/// A quantization method with its options, ready for a model.
pub(super) trait Method {
    /// An error if `layer` cannot be quantized, told before any work is done.
    fn check(&self, layer: &Layer) -> Result<(), QuantizeError>;

    /// Quantizes `block`. Blocks come in order; those that an earlier attempt finished are left out.
    fn quantize(&mut self, block: Block) -> Result<Quantized, QuantizeError>;

    /// Block number `index` is finished, by this attempt or an earlier one; `tensors` is what is stored of it. Said as long as a
    /// later block is open.
    fn passed(&mut self, _index: usize, _tensors: crate::model::TensorFiles) -> Result<(), QuantizeError> {
        Ok(())
    }

    /// `quantization_config` of the new config.json.
    fn config(&self) -> Value;

    /// What the record and the report say of it: rounding rule, scale rule, activations.
    fn facts(&self) -> Facts;
}
