//! Attention of many rows to the keys of one prefix and to their own, without a copy of the prefix for each row.
//!
//! The prefix is the same for all rows, so that their queries are one matrix and its products are large. What comes of
//! the prefix and what comes of a row's own tokens is joined by how much weight the softmax gives to each: a softmax over
//! both parts is the sum of the parts', each times its share of the exponentials (Milakov & Gimelshein, 2018, arXiv
//! 1805.02867; Juravsky et al., 2024, arXiv 2402.05099).

use tch::{Device, Tensor};

/// Whether there is an operation here that also gives the logarithm of the softmax's sum.
pub(super) fn is_possible(device: Device) -> bool {
    device == Device::Cpu
}

/// `queries` [B, heads, W, D] attend to all of `prefix`, keys and values [1, kv_heads, P, D], and of `own`, keys and values
/// [B, kv_heads, T, D], to what `mask` [B or 1, 1, group * W, T] says, which is added to the scores; without one, W being T, to those
/// before them in their row and to themselves. Gives [B, heads, W, D].
pub(super) fn attend(
    queries: &Tensor,
    prefix: &(Tensor, Tensor),
    own: (&Tensor, &Tensor),
    mask: Option<&Tensor>,
) -> Tensor {
    let size = queries.size();
    let (batch, heads, new, width) = (size[0], size[1], size[2], size[3]);
    let key_heads = own.0.size()[1];
    let group = heads / key_heads;
    let (here, here_sum) = match mask {
        Some(mask) => {
            // The queries of a group are more queries of their key head.
            let folded = queries.reshape([batch, key_heads, group * new, width]);
            let (here, sum) = flash(&folded, own, Some(mask), false);
            (here.reshape([batch, heads, new, width]), sum.reshape([batch, heads, new, 1]))
        }
        None if group == 1 => {
            let (here, sum) = flash(queries, own, None, true);
            (here, sum.unsqueeze(-1))
        }
        None => {
            let each = |tensor: &Tensor| tensor.repeat_interleave_self_int(group, 1, None);
            let (here, sum) = flash(queries, (&each(own.0), &each(own.1)), None, true);
            (here, sum.unsqueeze(-1))
        }
    };
    let all = queries.transpose(0, 1).reshape([1, key_heads, group * batch * new, width]);
    let (before, before_sum) = flash(&all, (&prefix.0, &prefix.1), None, false);
    let by_row = |joined: &Tensor, last: i64| joined.reshape([heads, batch, new, last]).transpose(0, 1);
    // In f32, rounded once: both parts may be far larger than what comes of them.
    let share = (by_row(&before_sum, 1) - here_sum).sigmoid();
    let wide = |part: &Tensor| part.to_kind(share.kind());
    wide(&here).lerp_tensor(&wide(&by_row(&before, width)), &share).to_kind(here.kind())
}

/// softmax(Q Kᵀ / sqrt(D) + mask) V of keys and values K and V, and the logarithm of the sum of the exponentials, f32
/// [B, heads, T].
fn flash(
    queries: &Tensor,
    (keys, values): (&Tensor, &Tensor),
    mask: Option<&Tensor>,
    is_causal: bool,
) -> (Tensor, Tensor) {
    Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
        queries, keys, values, 0.0, is_causal, mask, None,
    )
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
    /// Types, and how far from f32's what is computed in them may be: parts and their sum are rounded once each.
    const KINDS: [(Kind, f64); 3] = [(Kind::Float, 1e-6), (Kind::Half, 2e-3), (Kind::BFloat16, 2e-2)];

    #[test]
    fn both_parts_together_are_one_softmax() {
        let (batch, key_heads, new, before, width) = (3, 2, 5, 40, 8);
        let part = |rows, tokens| {
            let size = [rows, key_heads, tokens, width];
            (Tensor::randn(size, CPU), Tensor::randn(size, CPU))
        };
        let (prefix, own) = (part(1, before), part(batch, new));
        let triangle = Tensor::ones([1, 1, new, new], (Kind::Bool, Device::Cpu)).tril(0);
        let hidden =
            Tensor::zeros([1, 1, new, new], CPU).masked_fill(&triangle.logical_not(), f64::NEG_INFINITY);
        let mask = Tensor::cat(&[Tensor::zeros([1, 1, new, before], CPU), hidden.shallow_clone()], 3);
        for group in [1, 3] {
            let queries = Tensor::randn([batch, key_heads * group, new, width], CPU);
            let all = |prefix: &Tensor, own: &Tensor| {
                let joined = Tensor::cat(&[&prefix.expand([batch, -1, -1, -1], false), own], 2);
                joined.repeat_interleave_self_int(group, 1, None)
            };
            let keys = all(&prefix.0, &own.0).transpose(2, 3);
            let weights = (queries.matmul(&keys) / (width as f64).sqrt() + &mask).softmax(-1, Kind::Float);
            let expected = weights.matmul(&all(&prefix.1, &own.1));
            let masks = [None, Some(hidden.repeat([1, 1, group, 1]))];
            for ((kind, tolerance), mask) in
                KINDS.into_iter().flat_map(|kind| masks.iter().map(move |mask| (kind, mask)))
            {
                let to = |tensor: &Tensor| tensor.to_kind(kind);
                let prefix = (to(&prefix.0), to(&prefix.1));
                let found = attend(
                    &to(&queries),
                    &prefix,
                    (&to(&own.0), &to(&own.1)),
                    mask.as_ref().map(to).as_ref(),
                );
                assert_eq!((found.size(), found.kind()), (expected.size(), kind));
                let difference = (found.to_kind(Kind::Float) - &expected).abs().max().double_value(&[]);
                assert!(difference < tolerance, "groups of {group}, {kind:?}, {mask:?}: {difference:e}");
            }
        }
    }
}
