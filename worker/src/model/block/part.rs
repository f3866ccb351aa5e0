//! The linear layers of a decoder block: their names, shapes and inputs.

use std::fmt;

use crate::model::checkpoint::Checkpoint;
use crate::model::config::Config;
use crate::model::decoder::block_name;
use crate::model::error::ModelError;
use crate::model::formats;
use crate::model::linear::{Linear, LinearSpec, LoadOptions};

/// The norm in front of the attention, by its name in a block.
pub const INPUT_NORM: &str = "input_layernorm";
/// The norm in front of the feed-forward network.
pub const MLP_NORM: &str = "post_attention_layernorm";

/// A linear layer of a decoder block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The attention's queries.
    Query,
    /// Its keys.
    Key,
    /// Its values.
    Value,
    /// Its output projection.
    Output,
    /// What decides in the feed-forward network.
    Gate,
    /// What it decides on.
    Up,
    /// The way back to the residual stream.
    Down,
}

impl Part {
    /// All, in the order in which they are used.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Its place in [`Self::ALL`].
    pub fn place(self) -> usize {
        self as usize
    }

    /// Its name in the block.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Its name in the model: `model.layers.0.self_attn.q_proj`.
    pub fn full_name(self, block: usize) -> String {
        format!("{}.{}", block_name(block), self.name())
    }

    /// N and K: how many output and input channels it has.
    pub fn shape(self, config: &Config) -> [i64; 2] {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        match self {
            Self::Query => [queries, hidden],
            Self::Key | Self::Value => [keys, hidden],
            Self::Output => [hidden, queries],
            Self::Gate | Self::Up => [inner, hidden],
            Self::Down => [hidden, inner],
        }
    }

    /// Whether it adds a vector.
    pub fn has_bias(self, config: &Config) -> bool {
        match self {
            Self::Query | Self::Key | Self::Value => config.query_key_value_bias,
            Self::Output => config.attention_output_bias,
            Self::Gate | Self::Up | Self::Down => config.mlp_bias,
        }
    }

    /// That of block number `block`, however `checkpoint` stores it.
    pub(in crate::model) fn load(
        self,
        checkpoint: &Checkpoint,
        block: usize,
        options: &LoadOptions,
    ) -> Result<Box<dyn Linear>, ModelError> {
        let [out_features, in_features] = self.shape(&checkpoint.config);
        let (name, bias) = (self.full_name(block), self.has_bias(&checkpoint.config));
        let spec = LinearSpec { name: &name, in_features, out_features, bias };
        formats::load_linear(checkpoint, &spec, options)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an input has its channels from, one from one: what is scaled there is scaled in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A norm, by its name in the block.
    Norm(&'static str),
    /// A linear layer, if it has as many output channels as the input has: keys and values may have fewer heads.
    Linear(Part),
}

/// What some linear layers of a block are given.
#[derive(Clone, Copy, Debug)]
pub struct PartInput {
    /// Where its channels come from.
    pub source: Source,
    /// The first layer that is given it, which names it.
    pub first: Part,
    /// All of them.
    pub parts: &'static [Part],
}

/// The inputs of a block's linear layers, in the order in which they arise.
pub const INPUTS: [PartInput; 4] = [
    PartInput {
        source: Source::Norm(INPUT_NORM),
        first: Part::Query,
        parts: &[Part::Query, Part::Key, Part::Value],
    },
    PartInput { source: Source::Linear(Part::Value), first: Part::Output, parts: &[Part::Output] },
    PartInput { source: Source::Norm(MLP_NORM), first: Part::Gate, parts: &[Part::Gate, Part::Up] },
    PartInput { source: Source::Linear(Part::Up), first: Part::Down, parts: &[Part::Down] },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_has_its_place_and_one_input() {
        assert!(Part::ALL.into_iter().map(Part::place).eq(0..Part::ALL.len()));
        assert!(INPUTS.iter().flat_map(|input| input.parts).copied().eq(Part::ALL));
        assert!(INPUTS.iter().all(|input| input.parts.first() == Some(&input.first)));
    }

    #[test]
    fn a_pipeline_calls_them_by_the_last_part_of_their_names() {
        let last = |part: Part| part.name().rsplit('.').next().unwrap_or_default();
        assert_eq!(Part::ALL.map(last), qpipe_nodes::kinds::LINEAR_NAMES);
    }
}
