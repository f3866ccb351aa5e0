//! The published study's way, and the slow truth that [`super::engine`] is compared with: batch 1, one forward
//! pass a candidate.

use tch::{Kind, Tensor};

use super::error::EvalError;
use super::sequences::Sequences;
use crate::model::{Attention, Decoder};

/// The log-probabilities (natural logarithm, in float32) of the candidates of one question. Each pass takes the
/// whole of prompt + candidate and computes the logits of all its tokens.
///
/// # Errors
/// When libtorch's answer has another shape than expected.
pub fn score(decoder: &Decoder, sequences: &Sequences) -> Result<Vec<f64>, EvalError> {
    tch::no_grad(|| {
        sequences.full.iter().map(|ids| candidate(decoder, ids, sequences.prompt_tokens)).collect()
    })
}

fn candidate(decoder: &Decoder, ids: &[i64], prompt_tokens: usize) -> Result<f64, EvalError> {
    let device = decoder.device();
    let length = ids.len() as i64;
    let input = Tensor::from_slice(ids).to_device(device).unsqueeze(0);
    let positions = Tensor::arange(length, (Kind::Int64, device)).unsqueeze(0);
    let hidden = decoder.hidden(&input, &positions, &Attention::Causal, None);
    let logits = decoder.logits(&hidden).squeeze_dim(0);
    let scored = length - prompt_tokens as i64;
    let log_probabilities = logits.narrow(0, prompt_tokens as i64 - 1, scored).log_softmax(-1, Kind::Float);
    let targets = input.narrow(1, prompt_tokens as i64, scored).view([scored, 1]);
    let values = Vec::<f32>::try_from(log_probabilities.gather(1, &targets, false).view(-1))?;
    Ok(values.into_iter().map(f64::from).sum())
}
