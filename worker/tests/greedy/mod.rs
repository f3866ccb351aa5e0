//! The likeliest continuation of one prompt.

use qpipe_worker::model::Decoder;
use qpipe_worker::model::generate::generate;
use tch::TchError;

/// Continues `ids` by `count` tokens, each the most probable one (the first of equals). Ends early after a token of
/// `stop`; an empty `stop` never ends early. The new tokens only.
pub(crate) fn greedy(decoder: &Decoder, ids: &[i64], count: usize, stop: &[i64]) -> Vec<i64> {
    let mut tokens: Vec<i64> = Vec::with_capacity(count);
    if count == 0 {
        return tokens;
    }
    generate::<TchError>(decoder, &[ids], count, &mut |_, logits| {
        let token = logits.f_argmax(-1, false)?.int64_value(&[0]);
        tokens.push(token);
        Ok(vec![(tokens.len() < count && !stop.contains(&token)).then_some(token)])
    })
    .expect("libtorch computes");
    tokens
}
