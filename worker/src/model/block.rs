//! One decoder block: x + attention(norm(x)), then x + mlp(norm(x)).

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

/// The inputs of a block's linear layers, in the order in which they arise: what an observer of
/// [`super::BlockRunner::forward`] is shown as, and the linear layers that share it.
pub const INPUTS: [(&str, &[&str]); 4] = [
    ("self_attn.q_proj", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    ("self_attn.o_proj", &["self_attn.o_proj"]),
    ("mlp.gate_proj", &["mlp.gate_proj", "mlp.up_proj"]),
    ("mlp.down_proj", &["mlp.down_proj"]),
];

/// Is shown each of [`INPUTS`] with its name.
pub type Observer<'a> = dyn FnMut(&'static str, &Tensor) + 'a;

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
            input_norm: norm("input_layernorm")?,
            attention: SelfAttention::load(checkpoint, &format!("{name}.self_attn"), index, options)?,
            mlp_norm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(checkpoint, &format!("{name}.mlp"), options)?,
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

    /// The linear layers by their names in the block, in the order in which they are used.
    pub fn linears(&self) -> [(&'static str, &dyn Linear); 7] {
        [
            ("self_attn.q_proj", self.attention.query.as_ref()),
            ("self_attn.k_proj", self.attention.key.as_ref()),
            ("self_attn.v_proj", self.attention.value.as_ref()),
            ("self_attn.o_proj", self.attention.output.as_ref()),
            ("mlp.gate_proj", self.mlp.gate.as_ref()),
            ("mlp.up_proj", self.mlp.up.as_ref()),
            ("mlp.down_proj", self.mlp.down.as_ref()),
        ]
    }

    /// The same, to be replaced.
    pub fn linears_mut(&mut self) -> [(&'static str, &mut Box<dyn Linear>); 7] {
        [
            ("self_attn.q_proj", &mut self.attention.query),
            ("self_attn.k_proj", &mut self.attention.key),
            ("self_attn.v_proj", &mut self.attention.value),
            ("self_attn.o_proj", &mut self.attention.output),
            ("mlp.gate_proj", &mut self.mlp.gate),
            ("mlp.up_proj", &mut self.mlp.up),
            ("mlp.down_proj", &mut self.mlp.down),
        ]
    }

    /// The norms by their names in the block.
    pub fn norms(&self) -> impl Iterator<Item = (&'static str, &RmsNorm)> {
        let always = [("input_layernorm", &self.input_norm), ("post_attention_layernorm", &self.mlp_norm)];
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
