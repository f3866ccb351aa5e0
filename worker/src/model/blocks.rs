//! A model block by block: one decoder block in memory at a time, the inputs of its linear layers shown to an
//! observer. The arithmetic is [`super::Decoder`]'s, operation by operation.

use std::cell::OnceCell;

use tch::{Kind, Tensor};

use super::block::{Block, Observer};
use super::checkpoint::Checkpoint;
use super::config::Config;
use super::embedding::Embedding;
use super::error::ModelError;
use super::frame::{Frame, Pass};
use super::linear::LoadOptions;
use super::patterns::{Attention, Setting};
use super::rope::RotaryEmbedding;

/// Loads and runs the blocks of one checkpoint.
///
/// ```text
/// let mut hidden = runner.embed(&ids)?;                       [B, T] -> [B, T, hidden]
/// let frame = runner.frame(&positions, &Attention::Causal);
/// for index in 0..runner.blocks() {
///     let block = runner.load_block(index)?;                  block.linears_mut() may be replaced
///     hidden = runner.forward(&block, hidden, &frame, &mut |part, input| …);
/// }
/// ```
#[derive(Debug)]
pub struct BlockRunner<'a> {
    checkpoint: &'a Checkpoint,
    options: LoadOptions,
    kind: Kind,
    /// Loaded when it is first needed: one block after the other, a model may be taken in hand by several runners.
    embedding: OnceCell<Embedding>,
    rotary: RotaryEmbedding,
}

impl<'a> BlockRunner<'a> {
    /// Loads nothing yet.
    pub fn new(checkpoint: &'a Checkpoint, options: LoadOptions) -> Result<Self, ModelError> {
        let config = &checkpoint.config;
        Ok(Self {
            checkpoint,
            options,
            kind: options.kind(checkpoint)?,
            embedding: OnceCell::new(),
            rotary: RotaryEmbedding::new(&config.rope, config.head_dim, options.device),
        })
    }

    /// The model's config.json.
    pub fn config(&self) -> &Config {
        &self.checkpoint.config
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.checkpoint.config.layers
    }

    /// The floating-point type of hidden states.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Loads block number `index`, from 0.
    pub fn load_block(&self, index: usize) -> Result<Block, ModelError> {
        Block::load(self.checkpoint, index, &self.options)
    }

    /// What goes into block 0: `ids` i64 [B, T] on the runner's device, to [B, T, hidden].
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor, ModelError> {
        let embedding = match self.embedding.get() {
            Some(embedding) => embedding,
            None => {
                let loaded = Embedding::load(self.checkpoint, &self.options)?;
                self.embedding.get_or_init(|| loaded)
            }
        };
        Ok(embedding.look_up(ids)?)
    }

    /// `positions` i64 [B, T] on the runner's device. No tokens come before them.
    pub fn frame(&self, positions: &Tensor, attention: &Attention) -> Frame {
        let setting =
            Setting { config: &self.checkpoint.config, kind: self.kind, attention: self.options.attention() };
        let pass =
            Pass { attention, queries: positions, keys: positions, shared: 0, setting, rotary: &self.rotary };
        pass.frame()
    }

    /// `hidden` [B, T, hidden] through `block`. `observe` is shown every input of a linear layer, [B, T, K], once
    /// for all layers that share it, by the first of them (see [`super::block::INPUTS`]).
    pub fn forward(
        &self,
        block: &Block,
        hidden: Tensor,
        frame: &Frame,
        observe: &mut Observer<'_>,
    ) -> Tensor {
        block.forward(hidden, frame, None, Some(observe))
    }
}
