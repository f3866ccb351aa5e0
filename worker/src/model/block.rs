//! One decoder block: x + attention(norm(x)), then x + mlp(norm(x)).

mod part;

use tch::Tensor;

use super::attention::SelfAttention;
use super::checkpoint::Checkpoint;
use super::decoder::block_name;
use super::error::ModelError;
use super::frame::{Frame, Wanted};
use super::kv_cache::Past;
use super::linear::{Linear, LoadOptions, tensor_bytes};
use super::mlp::Mlp;
use super::norm::RmsNorm;

pub use part::{INPUT_NORM, INPUTS, MLP_NORM, Part, PartInput, Source};

/// Is shown each of [`INPUTS`], by the first layer that is given it.
pub type Observer<'a> = dyn FnMut(Part, &Tensor) + 'a;

/// A decoder block with its weights.
#[derive(Debug)]
pub struct Block {
    /// In front of the attention.
    pub input_norm: RmsNorm,
    /// The attention.
    pub attention: SelfAttention,
    /// In front of the feed-forward network.
    pub mlp_norm: RmsNorm,
    /// The feed-forward network.
    pub mlp: Mlp,
}

impl Block {
    /// Loads block number `index`.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        index: usize,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let name = block_name(index);
        let norm = |part: &str| {
            RmsNorm::load(checkpoint, &format!("{name}.{part}"), checkpoint.config.hidden_size, options)
        };
        Ok(Self {
            input_norm: norm(INPUT_NORM)?,
            attention: SelfAttention::load(checkpoint, index, options)?,
            mlp_norm: norm(MLP_NORM)?,
            mlp: Mlp::load(checkpoint, index, options)?,
        })
    }

    /// `x` [B, T, hidden], of the same shape. Without an observer, kernels may quantize what a norm gives where they normalize.
    pub(super) fn forward(
        &self,
        x: Tensor,
        frame: &Frame,
        past: Option<&mut dyn Past>,
        mut observe: Option<&mut Observer<'_>>,
    ) -> Tensor {
        let input = self.input_norm.input(&x);
        let attended = self.attention.forward(input, frame, past, observe.as_deref_mut());
        self.rest(&x, attended, observe)
    }

    /// The same for the `wanted` of the tokens alone, [B, W, hidden]. Of the others only keys and values are computed.
    pub(super) fn forward_wanted(
        &self,
        x: &Tensor,
        frame: &Frame,
        past: Option<&mut dyn Past>,
        wanted: &Wanted,
    ) -> Tensor {
        let some = wanted.select(x);
        let input = self.input_norm.input(x);
        let Some(wanted) = &wanted.frame else {
            self.attention.remember(&input, frame, past);
            return some;
        };
        let asking = self.input_norm.input(&some);
        let attended = self.attention.forward_wanted((input, frame), (asking, wanted), past);
        self.rest(&some, attended, None)
    }

    /// What comes after attention.
    fn rest(&self, x: &Tensor, attended: Tensor, observe: Option<&mut Observer<'_>>) -> Tensor {
        let x = sum(x, attended);
        let transformed = self.mlp.forward(self.mlp_norm.input(&x), observe);
        sum(&x, transformed)
    }

    /// The linear layers, in the order in which they are used.
    pub fn linears(&self) -> [(Part, &dyn Linear); 7] {
        Part::ALL.map(|part| (part, self.linear(part)))
    }

    /// The same, to be replaced.
    pub fn linears_mut(&mut self) -> [(Part, &mut Box<dyn Linear>); 7] {
        [
            (Part::Query, &mut self.attention.query),
            (Part::Key, &mut self.attention.key),
            (Part::Value, &mut self.attention.value),
            (Part::Output, &mut self.attention.output),
            (Part::Gate, &mut self.mlp.gate),
            (Part::Up, &mut self.mlp.up),
            (Part::Down, &mut self.mlp.down),
        ]
    }

    fn linear(&self, part: Part) -> &dyn Linear {
        match part {
            Part::Query => self.attention.query.as_ref(),
            Part::Key => self.attention.key.as_ref(),
            Part::Value => self.attention.value.as_ref(),
            Part::Output => self.attention.output.as_ref(),
            Part::Gate => self.mlp.gate.as_ref(),
            Part::Up => self.mlp.up.as_ref(),
            Part::Down => self.mlp.down.as_ref(),
        }
    }

    /// The norms by their names in the block.
    pub fn norms(&self) -> impl Iterator<Item = (&'static str, &RmsNorm)> {
        let always = [(INPUT_NORM, &self.input_norm), (MLP_NORM, &self.mlp_norm)];
        let query = self.attention.query_norm.as_ref().map(|norm| ("self_attn.q_norm", norm));
        let key = self.attention.key_norm.as_ref().map(|norm| ("self_attn.k_norm", norm));
        always.into_iter().chain(query).chain(key)
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.linears().iter().map(|(_, linear)| linear.bytes()).sum::<u64>()
            + self.norms().map(|(_, norm)| tensor_bytes(&norm.weight)).sum::<u64>()
    }
}

/// What goes around a layer and what came out of it, in its place unless gradients are wanted.
fn sum(x: &Tensor, mut y: Tensor) -> Tensor {
    if x.requires_grad() || y.requires_grad() { x + y } else { y.g_add_(x) }
}
