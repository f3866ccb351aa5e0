//! Greedy decoding.

use tch::{Kind, Tensor};

use super::attention::Attention;
use super::decoder::Decoder;
use super::kv_cache::KvCache;

/// Continues `ids` by `count` tokens, each the most probable one (the first of equals), through a KV cache.
/// Ends early after a token of `stop`; an empty `stop` never ends early. The new tokens only.
pub fn greedy(decoder: &Decoder, ids: &[i64], count: usize, stop: &[i64]) -> Vec<i64> {
    if ids.is_empty() || count == 0 {
        return Vec::new();
    }
    tch::no_grad(|| {
        let mut cache = KvCache::with_capacity(decoder.config(), (ids.len() + count) as i64);
        let mut tokens: Vec<i64> = Vec::with_capacity(count);
        let mut input = Tensor::from_slice(ids).unsqueeze(0).to_device(decoder.device());
        loop {
            let (past, new) = (cache.len(), input.size()[1]);
            let positions =
                Tensor::arange_start(past, past + new, (Kind::Int64, decoder.device())).unsqueeze(0);
            let hidden = decoder.hidden(&input, &positions, &Attention::Causal, Some(&mut cache));
            let next = decoder.logits(&hidden.select(1, new - 1)).argmax(-1, false);
            let token = next.int64_value(&[0]);
            tokens.push(token);
            if tokens.len() == count || stop.contains(&token) {
                return tokens;
            }
            input = next.unsqueeze(0);
        }
    })
}
