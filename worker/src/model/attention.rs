//! Self-attention with grouped keys and values (Ainslie et al., 2023, arXiv 2305.13245), through libtorch's
//! fused scaled dot product, or the one of our own where that is asked for and faster.

use qpipe_kernels::{Input, attention, decode};
use tch::Tensor;

use super::block::{Observer, Part};
use super::checkpoint::Checkpoint;
use super::decoder::block_name;
use super::error::ModelError;
use super::frame::Frame;
use super::kv_cache::Past;
use super::linear::{Linear, LoadOptions};
use super::norm::RmsNorm;
use super::patterns::Pattern;
use super::rope::Rotation;
use super::shared_prefix;

/// Why a past has what is asked of it.
const READ: &str = "shared tokens went through every layer";

/// The attention of one decoder block.
#[derive(Debug)]
pub struct SelfAttention {
    /// `[hidden]` to [heads * head_dim].
    pub query: Box<dyn Linear>,
    /// `[hidden]` to [kv_heads * head_dim].
    pub key: Box<dyn Linear>,
    /// `[hidden]` to [kv_heads * head_dim].
    pub value: Box<dyn Linear>,
    /// [heads * head_dim] to `[hidden]`.
    pub output: Box<dyn Linear>,
    /// Over each query head; only in families with QK-norm.
    pub query_norm: Option<RmsNorm>,
    /// Over each key head.
    pub key_norm: Option<RmsNorm>,
    head_dim: i64,
    group_size: i64,
    window: Option<i64>,
    layer: usize,
}

impl SelfAttention {
    /// The attention of block number `layer`.
    pub fn load(checkpoint: &Checkpoint, layer: usize, options: &LoadOptions) -> Result<Self, ModelError> {
        let config = &checkpoint.config;
        let block = block_name(layer);
        let load = |part: Part| part.load(checkpoint, layer, options);
        let norm = |part: &str| {
            let norm =
                RmsNorm::load(checkpoint, &format!("{block}.self_attn.{part}"), config.head_dim, options);
            config.family.query_key_norm.then_some(norm).transpose()
        };
        Ok(Self {
            query: load(Part::Query)?,
            key: load(Part::Key)?,
            value: load(Part::Value)?,
            output: load(Part::Output)?,
            query_norm: norm("q_norm")?,
            key_norm: norm("k_norm")?,
            head_dim: config.head_dim,
            group_size: config.group_size(),
            window: config.windows[layer],
            layer,
        })
    }

    /// `x` [B, T, hidden], of the same shape. An observer is shown `x`, which three linear layers share, and what
    /// the output projection is given.
    pub(super) fn forward(
        &self,
        x: Input<'_>,
        frame: &Frame,
        past: Option<&mut dyn Past>,
        mut observe: Option<&mut Observer<'_>>,
    ) -> Tensor {
        if let Some(observe) = &mut observe {
            observe(Part::Query, x.tensor());
        }
        let pattern = frame.patterns.of_layer(self.window);
        if let (Pattern::Next, Some(past)) = (pattern, &past) {
            return self.next(&x, &frame.rotation, &**past);
        }
        let queries = self.queries(&x, &frame.rotation);
        let new = self.keys_values(&x, &frame.rotation);
        // With all that was kept for these three.
        drop(x);
        let joined = self.attend(&queries, new, pattern, past);
        if let Some(observe) = observe {
            observe(Part::Output, &joined);
        }
        self.output.forward(&joined)
    }

    /// The same with queries of other inputs, [B, W, hidden], of the same shape.
    pub(super) fn forward_wanted(
        &self,
        (x, frame): (Input<'_>, &Frame),
        (asking, wanted): (Input<'_>, &Frame),
        past: Option<&mut dyn Past>,
    ) -> Tensor {
        let queries = self.queries(&asking, &wanted.rotation);
        drop(asking);
        let new = self.keys_values(&x, &frame.rotation);
        drop(x);
        let joined = self.attend(&queries, new, wanted.patterns.of_layer(self.window), past);
        self.output.forward(&joined)
    }

    /// Lets `past` take in the keys and values of `x` [B, T, hidden], and nothing else.
    pub(super) fn remember(&self, x: &Input<'_>, frame: &Frame, past: Option<&mut dyn Past>) {
        if let Some(past) = past {
            let (keys, values) = self.keys_values(x, &frame.rotation);
            let _ = past.append(self.layer, &keys, &values);
        }
    }

    /// [B, heads, T, D] of `x` [B, T, hidden].
    fn queries(&self, x: &Input<'_>, rotation: &Rotation) -> Tensor {
        rotation.apply(&self.heads(x, self.query.as_ref(), self.query_norm.as_ref()))
    }

    /// [B, kv_heads, T, D] of `x` [B, T, hidden].
    fn keys_values(&self, x: &Input<'_>, rotation: &Rotation) -> (Tensor, Tensor) {
        let keys = rotation.apply(&self.heads(x, self.key.as_ref(), self.key_norm.as_ref()));
        (keys, self.heads(x, self.value.as_ref(), None))
    }

    /// What `projection` makes of `x` [B, T, hidden], [B, heads, T, D].
    fn heads(&self, x: &Input<'_>, projection: &dyn Linear, norm: Option<&RmsNorm>) -> Tensor {
        let shape = x.size();
        let heads = projection.forward_input(x).view([shape[0], shape[1], -1, self.head_dim]);
        norm.map_or(heads.shallow_clone(), |norm| norm.forward(&heads)).transpose(1, 2)
    }

    /// What `queries` [B, heads, T, D] find in the new keys and values and those of the past, [B, T, heads · D].
    fn attend(
        &self,
        queries: &Tensor,
        (mut keys, mut values): (Tensor, Tensor),
        pattern: &Pattern,
        past: Option<&mut dyn Past>,
    ) -> Tensor {
        let past = match past {
            Some(past) if pattern.is_after_prefix() => Some(&*past),
            Some(past) => {
                (keys, values) = past.append(self.layer, &keys, &values);
                None
            }
            None => None,
        };
        let joined = |attended: Tensor| attended.transpose(1, 2).flatten(2, 3);
        match (pattern, past) {
            (Pattern::Ours { seen, .. }, past) => {
                let prefix = past.map(|past| past.shared_packed(self.layer).expect(READ));
                attention::attend(queries, prefix, (&keys, &values), seen)
                    .expect("shapes fit, and there is memory")
            }
            (Pattern::AfterPrefix(mask), Some(past)) => {
                let prefix = past.shared(self.layer).expect(READ);
                joined(shared_prefix::attend(queries, &prefix, (&keys, &values), mask.as_ref()))
            }
            _ => joined(attend(queries, &keys, &values, pattern, self.group_size)),
        }
    }

    /// `x` [B, 1, hidden], of the same shape: of one new token a row, which goes where `past` says.
    fn next(&self, x: &Input<'_>, rotation: &Rotation, past: &dyn Past) -> Tensor {
        let batch = x.size()[0];
        let heads = |projected: Tensor, norm: Option<&RmsNorm>| {
            let heads = projected.view([batch, -1, self.head_dim]);
            norm.map_or_else(|| heads.shallow_clone(), |norm| norm.forward(&heads))
        };
        let queries = heads(self.query.forward_input(x), self.query_norm.as_ref());
        let keys = heads(self.key.forward_input(x), self.key_norm.as_ref());
        let values = heads(self.value.forward_input(x), None);
        let slots = past.next(self.layer).expect("a pass of this pattern has places for its tokens");
        let (cos, sin) = rotation.angles();
        let angles = [cos, sin].map(|angles| angles.view([-1, self.head_dim / 2]));
        let attended = decode::append_rotated([&queries, &keys, &values], angles.each_ref(), &slots)
            .and_then(|queries| decode::attend_one(&queries, &slots, self.window))
            .expect("all of it is on the card, in shapes that fit");
        self.output.forward(&attended.view([batch, 1, -1]))
    }
}

/// softmax(Q Kᵀ / sqrt(D)) V: queries [B, kv_heads * group, T, D], keys and values [B, kv_heads, S, D].
fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor, pattern: &Pattern, group: i64) -> Tensor {
    let causal = |queries: &Tensor, keys: &Tensor, values: &Tensor| {
        let no_mask = None::<Tensor>;
        Tensor::scaled_dot_product_attention(queries, keys, values, no_mask, 0.0, true, None, group > 1)
    };
    // Training stays what it is for everybody else.
    let is_trained = || [queries, keys, values].iter().any(|tensor| tensor.requires_grad());
    match pattern {
        Pattern::Triangle(Some(mask)) if !is_trained() => {
            let tokens = queries.size()[2];
            let half = tokens / 2;
            let begin = |tensor: &Tensor| tensor.narrow(2, 0, half);
            let first = causal(&begin(queries), &begin(keys), &begin(values));
            let second =
                attend_to_all(&queries.narrow(2, half, tokens - half), keys, values, Some(mask), group);
            Tensor::cat(&[first, second], 2)
        }
        Pattern::Triangle(_) => causal(queries, keys, values),
        Pattern::Mask(mask) => attend_to_all(queries, keys, values, Some(mask), group),
        Pattern::Full => attend_to_all(queries, keys, values, None, group),
        Pattern::AfterPrefix(_) | Pattern::Ours { .. } | Pattern::Next => {
            unreachable!("others attend by these")
        }
    }
}

/// The same of all keys, or those that `mask` leaves, which is added to the scores.
fn attend_to_all(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
    group: i64,
) -> Tensor {
    // The queries of a group are just more queries of their key head: no copies of the keys, and none of libtorch's kernels needs to
    // know about groups.
    let size = queries.size();
    let folded = queries.reshape([size[0], size[1] / group, group * size[2], size[3]]);
    let attended = Tensor::scaled_dot_product_attention(&folded, keys, values, mask, 0.0, false, None, false);
    attended.reshape(size.as_slice())
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn a_triangle_in_halves_is_the_triangle() {
        tch::manual_seed(6);
        for (tokens, is_divided) in [(256, false), (257, true), (512, true), (513, false)] {
            for (kind, group, tolerance) in [
                (Kind::Float, 1, 1e-6),
                (Kind::Float, 2, 1e-6),
                (Kind::Half, 2, 2e-3),
                (Kind::BFloat16, 2, 2e-2),
            ] {
                let random =
                    |heads| Tensor::randn([2, heads, tokens, 8], (Kind::Float, Device::Cpu)).to_kind(kind);
                let (queries, keys, values) = (random(2 * group), random(2), random(2));
                let pattern = Pattern::triangle(tokens, Device::Cpu, group, kind);
                assert!(matches!(&pattern, Pattern::Triangle(mask) if mask.is_some() == is_divided));
                let found = attend(&queries, &keys, &values, &pattern, group);
                let whole = attend(&queries, &keys, &values, &Pattern::Triangle(None), group);
                assert_eq!((found.size(), found.kind()), (queries.size(), kind));
                assert!(found.allclose(&whole, tolerance, tolerance, false), "{tokens} tokens, {kind:?}");
            }
        }
    }
}
