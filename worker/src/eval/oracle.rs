//! The published study's way, and the slow truth that [`super::engine`] is compared with: batch 1, one forward
//! pass a candidate.

use tch::{Kind, Tensor};

use super::error::EvalError;
use super::sequences::{Sequence, Sequences};
use super::task::Score;
use crate::model::{Attention, Decoder};

/// The scores of one question's requests. Each pass takes the whole of context + continuation; the tokens that predict one of the
/// continuation have logits, and log-probabilities in float32.
///
/// # Errors
/// When libtorch's answer has another shape than expected.
pub fn score(decoder: &Decoder, sequences: &Sequences) -> Result<Vec<Score>, EvalError> {
    tch::no_grad(|| sequences.0.iter().map(|sequence| request(decoder, sequence)).collect())
}

fn request(decoder: &Decoder, sequence: &Sequence) -> Result<Score, EvalError> {
    let device = decoder.device();
    // The last token is scored, never read.
    let length = sequence.ids.len() as i64 - 1;
    let ids = Tensor::from_slice(&sequence.ids).to_device(device).unsqueeze(0);
    let positions = Tensor::arange(length, (Kind::Int64, device)).unsqueeze(0);
    let hidden = decoder.hidden(&ids.narrow(1, 0, length), &positions, &Attention::Causal, None);
    let before = sequence.context as i64;
    let scored = length + 1 - before;
    let logits = decoder.logits(&hidden.narrow(1, before - 1, scored)).squeeze_dim(0);
    let targets = ids.narrow(1, before, scored).view([scored]);
    let log_probabilities = logits.log_softmax(-1, Kind::Float).gather(1, &targets.unsqueeze(1), false);
    let values = Vec::<f32>::try_from(log_probabilities.view(-1))?;
    Ok(Score {
        log_probability: values.into_iter().map(f64::from).sum(),
        is_greedy: logits.argmax(-1, false).equal(&targets),
    })
}
