//! Rows through the decoder, many at a time.

use std::path::Path;

use qpipe_nodes::kinds::Dtype;
use tch::{Device, Kind, Tensor};

use super::error::EvalError;
use super::row::{Row, SHARED};
use crate::model::{Attention, Checkpoint, Decoder, LoadOptions, Tokenizer};
use crate::torch;

/// The segment of padding: it attends to itself, so that no row of the attention is empty.
const PADDING: i64 = -1;
/// Logits that are held at one time, in bytes of float32.
const LOGITS_BYTES: usize = 64 << 20;

/// Loads the decoder of a checkpoint folder for inference.
///
/// # Errors
/// When the checkpoint does not load.
pub fn load(checkpoint: &Checkpoint, device: Device, dtype: Option<Dtype>) -> Result<Decoder, EvalError> {
    let options = LoadOptions::inference(device, dtype.map(torch::kind_of));
    Ok(Decoder::load(checkpoint, &options)?)
}

/// Opens a checkpoint folder and its tokenizer, reading no weights yet.
///
/// # Errors
/// When a file is missing or wrong, or the tokenizer has tokens that the model does not.
pub fn open(folder: &Path) -> Result<(Checkpoint, Tokenizer), EvalError> {
    let checkpoint = Checkpoint::open(folder)?;
    let tokenizer = Tokenizer::open(folder)?;
    tokenizer.check_fits(&checkpoint.config)?;
    Ok((checkpoint, tokenizer))
}

/// The log-probabilities (natural logarithm, in float32) of the candidates of each row, in one forward pass.
/// Only the predictions that are scored become logits.
///
/// # Errors
/// When libtorch's answer has another shape than expected.
pub fn score(decoder: &Decoder, rows: &[&Row]) -> Result<Vec<Vec<f64>>, EvalError> {
    tch::no_grad(|| {
        let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let hidden = forward(decoder, rows, width);
        let targets = Targets::new(rows, width);
        let log_probabilities = targets.log_probabilities(decoder, &hidden)?;
        let mut scores: Vec<Vec<f64>> = rows.iter().map(|row| vec![0.0; candidates(row)]).collect();
        for (&(row, candidate), &value) in targets.owners.iter().zip(&log_probabilities) {
            scores[row][candidate] += f64::from(value);
        }
        Ok(scores)
    })
}

fn candidates(row: &Row) -> usize {
    row.targets.last().map_or(0, |target| target.candidate + 1)
}

/// Hidden states [B * width, hidden] of the padded rows.
fn forward(decoder: &Decoder, rows: &[&Row], width: usize) -> Tensor {
    let device = decoder.device();
    let shape = [rows.len() as i64, width as i64];
    let padded = |part: fn(&Row) -> &[i64], padding: i64| {
        let mut values = Vec::with_capacity(rows.len() * width);
        for row in rows {
            values.extend_from_slice(part(row));
            values.resize(values.len() + width - row.len(), padding);
        }
        Tensor::from_slice(&values).view(shape).to_device(device)
    };
    let ids = padded(|row| &row.ids, 0);
    let positions = padded(|row| &row.positions, 0);
    let attention = if rows.iter().all(|row| row.is_plain()) {
        Attention::Causal
    } else {
        Attention::Mask(tree_mask(&padded(|row| &row.segments, PADDING)))
    };
    let hidden = decoder.hidden(&ids, &positions, &attention, None);
    hidden.reshape([shape[0] * shape[1], -1])
}

/// bool [B, 1, T, T] from segments i64 [B, T]: a token sees what is shared and its own segment, up to itself.
fn tree_mask(segments: &Tensor) -> Tensor {
    let keys = segments.unsqueeze(1);
    let queries = segments.unsqueeze(2);
    let visible = keys.eq(SHARED).logical_or(&keys.eq_tensor(&queries));
    visible.tril(0).unsqueeze(1)
}

/// The targets of a batch, gathered by the prediction that they are read from.
struct Targets {
    /// Places in the flattened batch whose logits are needed, each once.
    places: Vec<i64>,
    /// For each target: index in `places`.
    predictions: Vec<i64>,
    /// For each target: the token.
    ids: Vec<i64>,
    /// For each target: row and candidate.
    owners: Vec<(usize, usize)>,
}

impl Targets {
    fn new(rows: &[&Row], width: usize) -> Self {
        let mut this =
            Self { places: Vec::new(), predictions: Vec::new(), ids: Vec::new(), owners: Vec::new() };
        for (index, row) in rows.iter().enumerate() {
            // Candidates share the prediction at the end of the prompt, and often no more.
            let mut seen: Vec<Option<i64>> = vec![None; row.len()];
            for target in &row.targets {
                let prediction = *seen[target.place].get_or_insert_with(|| {
                    this.places.push((index * width + target.place) as i64);
                    this.places.len() as i64 - 1
                });
                this.predictions.push(prediction);
                this.ids.push(target.id);
                this.owners.push((index, target.candidate));
            }
        }
        this
    }

    /// The log-probability of each target. `hidden` is [B * width, hidden].
    fn log_probabilities(&self, decoder: &Decoder, hidden: &Tensor) -> Result<Vec<f32>, EvalError> {
        let device = decoder.device();
        let row_bytes = decoder.config().vocab_size as usize * size_of::<f32>();
        let most = (LOGITS_BYTES / row_bytes).max(1);
        let mut values = vec![0.0; self.ids.len()];
        for (chunk, places) in self.places.chunks(most).enumerate() {
            let first = (chunk * most) as i64;
            let range = first..first + places.len() as i64;
            let here: Vec<usize> =
                (0..self.ids.len()).filter(|&target| range.contains(&self.predictions[target])).collect();
            let hidden = hidden.index_select(0, &Tensor::from_slice(places).to_device(device));
            let all = decoder.logits(&hidden).log_softmax(-1, Kind::Float);
            let predictions: Vec<i64> = here.iter().map(|&target| self.predictions[target] - first).collect();
            let ids: Vec<i64> = here.iter().map(|&target| self.ids[target]).collect();
            let picked = all.index(&[
                Some(Tensor::from_slice(&predictions).to_device(device)),
                Some(Tensor::from_slice(&ids).to_device(device)),
            ]);
            for (target, value) in here.into_iter().zip(Vec::<f32>::try_from(picked)?) {
                values[target] = value;
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_branch_sees_the_shared_part_and_itself() {
        let mask = tree_mask(&Tensor::from_slice(&[0_i64, 0, 1, 1, 2, PADDING]).view([1, 6]));
        assert_eq!(mask.size(), [1, 1, 6, 6]);
        let rows = Vec::<Vec<f64>>::try_from(mask.to_kind(Kind::Double).squeeze()).unwrap();
        let expected: [[u8; 6]; 6] = [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [1, 1, 0, 0, 1, 0],
            [1, 1, 0, 0, 0, 1],
        ];
        assert_eq!(rows, expected.map(|row| row.map(f64::from).to_vec()));
    }
}
