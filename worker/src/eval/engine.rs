//! Rows through the decoder, many at a time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use qpipe_kernels::FewRowsAlike;
use qpipe_nodes::kinds::Dtype;
use qpipe_nodes::results::Divergence;
use tch::{Device, Kind, Tensor};

use super::error::EvalError;
use super::layout::Batch;
use super::prefixes::{Models, ReadPrefix};
use super::row::{Cost, Row};
use super::task::{Response, Score};
use crate::model::{Attention, Checkpoint, Decoder, KvCache, LoadOptions, Past, Prefix, Products, Tokenizer};
use crate::torch;

/// Logits that are held at one time, in bytes of float32.
const LOGITS_BYTES: usize = 64 << 20;
/// The same on a CPU: what is larger than 32 MiB, glibc takes from the system anew every time, page by page (64 bits).
pub(super) const CPU_LOGITS_BYTES: usize = 31 << 20;
/// Where at least one of so many places predicts nothing, the last block leaves such places out: attention that is not plainly causal costs something.
const WORTH_LEAVING_OUT: usize = 4;
/// Logits that a CPU makes probabilities of at one time, in bytes of float32: they stay in its caches meanwhile.
const CPU_PROBABILITIES_BYTES: usize = 2 << 20;

/// Loads the decoder of a checkpoint folder for inference.
///
/// # Errors
/// When the checkpoint does not load.
pub fn load(
    checkpoint: &Checkpoint,
    device: Device,
    dtype: Option<Dtype>,
    products: Products,
) -> Result<Decoder, EvalError> {
    let options = LoadOptions { products, ..LoadOptions::inference(device, dtype.map(torch::kind_of)) };
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

/// Documents and the responses to them.
pub type Responses = Vec<(usize, Response)>;

/// The responses to a batch's documents, whose `prefix` was read: of each its index and its scores. Log-probabilities are taken in float32; only the
/// predictions that are scored become logits. Where there is a `reference`, the same passes through it tell how these
/// predictions differ. `give` is given them at the end, and nothing after each pass before: it may say that it is told to stop.
///
/// # Errors
/// When libtorch's answer has another shape than expected, and those of `give`.
///
/// # Panics
/// If `prefix` is another one than the batch's.
pub fn score(
    (decoder, reference): Models<'_>,
    prefix: &ReadPrefix,
    batch: &Batch,
    give: &mut dyn FnMut(Responses) -> Result<ControlFlow<()>, EvalError>,
) -> Result<(), EvalError> {
    assert!(prefix.is(&batch.prefix), "a batch goes through the model behind its own prefix");
    let _alike = FewRowsAlike::start();
    tch::no_grad(|| {
        let own = Reader { decoder, prefix: prefix.own.as_ref() };
        let reference = reference.map(|decoder| Reader { decoder, prefix: prefix.reference.as_ref() });
        let mut responses: BTreeMap<usize, Response> = BTreeMap::new();
        for (index, rows) in batch.passes.iter().enumerate() {
            for (document, part) in pass(&own, reference.as_ref(), rows)? {
                // The sequences of a document may lie in several passes.
                let whole = match responses.remove(&document) {
                    Some(whole) => whole.and(part),
                    None => part,
                };
                responses.insert(document, whole);
            }
            if index + 1 < batch.passes.len() && give(Responses::new())?.is_break() {
                return Ok(());
            }
        }
        let _ = give(responses.into_iter().collect())?;
        Ok(())
    })
}

/// A decoder that has read what all rows begin with.
struct Reader<'a> {
    decoder: &'a Decoder,
    prefix: Option<&'a KvCache>,
}

impl Reader<'_> {
    /// Hidden states [places, hidden] of the padded rows, in each at its `places`, row by row.
    fn read(&self, rows: &[Row], width: usize, places: &[Vec<i64>]) -> Result<Tensor, EvalError> {
        let device = self.decoder.device();
        let shape = [rows.len() as i64, width as i64];
        let padded = |part: fn(&Row) -> &[i64]| {
            let mut values = Vec::with_capacity(rows.len() * width);
            for row in rows {
                values.extend_from_slice(part(row));
                values.resize(values.len() + width - row.len(), 0);
            }
            Tensor::from_slice(&values).view(shape).to_device(device)
        };
        let ids = padded(|row| &row.ids);
        let positions = padded(|row| &row.positions);
        let attention = if rows.iter().all(Row::is_plain) {
            Attention::Causal
        } else {
            let seen = Tensor::from_slice(&visible(rows, width)).view([shape[0], 1, shape[1], shape[1]]);
            Attention::Mask(seen.to_device(device))
        };
        let mut past = self.prefix.map(Prefix::new);
        let past = past.as_mut().map(|past| past as &mut dyn Past);
        let most = places.iter().map(Vec::len).max().unwrap_or(0);
        let (hidden, index) = if WORTH_LEAVING_OUT * most <= (WORTH_LEAVING_OUT - 1) * width {
            let mut padded = Vec::with_capacity(rows.len() * most);
            for (row, places) in places.iter().enumerate() {
                padded.extend_from_slice(places);
                padded.resize((row + 1) * most, 0);
            }
            let padded = Tensor::from_slice(&padded).view([shape[0], most as i64]).to_device(device);
            let hidden = self.decoder.hidden_at(&padded, &ids, &positions, &attention, past);
            (hidden, flattened(places, most, |(place, _)| place as i64))
        } else {
            let hidden = self.decoder.hidden(&ids, &positions, &attention, past);
            (hidden, flattened(places, width, |(_, &place)| place))
        };
        let index = Tensor::from_slice(&index).to_device(device);
        Ok(hidden.f_flatten(0, 1)?.f_index_select(0, &index)?)
    }
}

/// Of each of the rows' `places`, given with its number in the row, where it stands in rows of `width` one behind the other.
fn flattened(places: &[Vec<i64>], width: usize, at: fn((usize, &i64)) -> i64) -> Vec<i64> {
    let row = |(row, places): (usize, &Vec<i64>)| -> Vec<i64> {
        places.iter().enumerate().map(|place| (row * width) as i64 + at(place)).collect()
    };
    places.iter().enumerate().flat_map(row).collect()
}

/// The responses to each row's documents, in one forward pass.
fn pass(own: &Reader<'_>, reference: Option<&Reader<'_>>, rows: &[Row]) -> Result<Responses, EvalError> {
    let width = rows.iter().map(Row::len).max().unwrap_or(0);
    let targets = Targets::new(rows);
    let certain = Score { log_probability: 0.0, is_greedy: true };
    let documents = rows.iter().flat_map(|row| &row.documents);
    let nothing = reference.map(|_| Divergence::default());
    let mut answers: Vec<(usize, Vec<Score>, Option<Divergence>)> =
        documents.map(|&(index, requests)| (index, vec![certain; requests], nothing)).collect();
    let response = |(document, scores, divergence)| (document, Response::Scores(scores, divergence));
    if targets.askers.is_empty() {
        // Texts without a token: nothing is predicted.
        return Ok(answers.into_iter().map(response).collect());
    }
    let hidden = own.read(rows, width, &targets.places)?;
    let compared = match reference {
        Some(reference) => Some((reference.decoder, reference.read(rows, width, &targets.places)?)),
        None => None,
    };
    let (predicted, divergences) = targets.predicted(own.decoder, &hidden, compared.as_ref())?;
    for (&(document, request), token) in targets.owners.iter().zip(&predicted) {
        let score = &mut answers[document].1[request];
        score.log_probability += token.log_probability;
        score.is_greedy &= token.is_greedy;
    }
    for (&document, divergence) in targets.askers.iter().zip(divergences) {
        let sum = &mut answers[document].2;
        *sum = sum.map(|sum| sum.and(divergence));
    }
    Ok(answers.into_iter().map(response).collect())
}

/// What a token costs in a model, and what rows take where there is another one to compare it with, to lay them out by.
pub fn cost((decoder, reference): Models<'_>) -> Cost {
    let config = decoder.config();
    let queries = (config.heads * config.head_dim) as f64;
    // Two products a pair of tokens; libtorch's run at about half the speed of the linear layers'.
    Cost {
        linear: config.block_weights() as f64,
        attention: 2.0 * 2.0 * queries,
        // Layers with a window see a part of it, as a part of each row.
        copies_prefix: [Some(decoder), reference].into_iter().flatten().any(|decoder| {
            decoder.device() != Device::Cpu || decoder.config().windows.iter().any(Option::is_some)
        }),
    }
}

/// Which tokens each token sees, bool [B, T, T]: its ancestors and itself. Padding sees itself, so that no row of the
/// attention is empty.
fn visible(rows: &[Row], width: usize) -> Vec<bool> {
    let mut mask = vec![false; rows.len() * width * width];
    for (row, mask) in rows.iter().zip(mask.chunks_mut((width * width).max(1))) {
        for place in 0..width {
            if let Some(&parent) = row.parents.get(place)
                && parent < place
            {
                mask.copy_within(parent * width..(parent + 1) * width, place * width);
            }
            mask[place * width + place] = true;
        }
    }
    mask
}

/// The targets of a batch, gathered by the prediction that they are read from.
struct Targets {
    /// Of each row: the places whose logits are needed, each once.
    places: Vec<Vec<i64>>,
    /// For each place, over all rows: the first document that needs it, counted over all rows.
    askers: Vec<usize>,
    /// For each target: its place, counted over all rows.
    predictions: Vec<i64>,
    /// For each target: the token.
    ids: Vec<i64>,
    /// For each target: the document, counted over all rows, and its request.
    owners: Vec<(usize, usize)>,
}

impl Targets {
    fn new(rows: &[Row]) -> Self {
        let mut this = Self {
            places: Vec::new(),
            askers: Vec::new(),
            predictions: Vec::new(),
            ids: Vec::new(),
            owners: Vec::new(),
        };
        let mut documents = 0;
        for row in rows {
            let mut places = Vec::new();
            // Candidates share the prediction at the end of the prompt, and often no more.
            let mut seen: Vec<Option<i64>> = vec![None; row.len()];
            for target in &row.targets {
                let prediction = *seen[target.place].get_or_insert_with(|| {
                    places.push(target.place as i64);
                    this.askers.push(documents + target.document);
                    this.askers.len() as i64 - 1
                });
                this.predictions.push(prediction);
                this.ids.push(target.id);
                this.owners.push((documents + target.document, target.request));
            }
            this.places.push(places);
            documents += row.documents.len();
        }
        this
    }

    /// The score of each target by itself, and of each place how the reference predicts otherwise. The hidden states are those of all
    /// places, [places, hidden].
    fn predicted(
        &self,
        decoder: &Decoder,
        hidden: &Tensor,
        reference: Option<&(&Decoder, Tensor)>,
    ) -> Result<(Vec<Score>, Vec<Divergence>), EvalError> {
        let device = decoder.device();
        let row_bytes = decoder.config().vocab_size as usize * size_of::<f32>();
        let bytes = if device.is_cuda() { LOGITS_BYTES } else { CPU_LOGITS_BYTES };
        let most = (bytes / row_bytes).max(1);
        let at_once =
            if device.is_cuda() { most } else { (CPU_PROBABILITIES_BYTES / row_bytes).clamp(1, most) };
        let mut scores = vec![Score { log_probability: 0.0, is_greedy: true }; self.ids.len()];
        let mut divergences = Vec::new();
        // Targets are in the order of the rows, not of the predictions: those of each prediction, together.
        let mut order: Vec<usize> = (0..self.ids.len()).collect();
        order.sort_by_key(|&target| self.predictions[target]);
        let mut rest = order.as_slice();
        let mut first = 0;
        let some = |decoder: &Decoder, hidden: &Tensor, begin: usize| -> Result<_, EvalError> {
            let count = most.min(self.askers.len() - begin);
            let hidden = hidden.f_narrow(0, begin as i64, count as i64)?;
            Ok(decoder.logits(&hidden).split(at_once as i64, 0))
        };
        for begin in (0..self.askers.len()).step_by(most) {
            let logits = some(decoder, hidden, begin)?;
            let theirs = reference.map(|(reference, hidden)| some(reference, hidden, begin));
            let theirs = theirs.transpose()?.unwrap_or_default();
            for (index, logits) in logits.iter().enumerate() {
                let end = first + logits.size()[0];
                let here;
                (here, rest) = rest.split_at(rest.partition_point(|&target| self.predictions[target] < end));
                let likeliest = logits.f_argmax(-1, false)?;
                let all = logits.f_log_softmax(-1, Kind::Float)?;
                if let Some(theirs) = theirs.get(index) {
                    divergences.extend(compared(theirs, &all, &likeliest)?);
                }
                let likeliest = Vec::<i64>::try_from(likeliest)?;
                let predictions: Vec<i64> =
                    here.iter().map(|&target| self.predictions[target] - first).collect();
                let ids: Vec<i64> = here.iter().map(|&target| self.ids[target]).collect();
                let picked = all.f_index(&[
                    Some(Tensor::from_slice(&predictions).to_device(device)),
                    Some(Tensor::from_slice(&ids).to_device(device)),
                ])?;
                for ((&target, value), prediction) in
                    here.iter().zip(Vec::<f32>::try_from(picked)?).zip(predictions)
                {
                    let is_greedy = likeliest[prediction as usize] == self.ids[target];
                    scores[target] = Score { log_probability: f64::from(value), is_greedy };
                }
                first = end;
            }
        }
        Ok((scores, divergences))
    }
}

/// Of each row of the reference's logits [places, vocabulary]: how the model's log-probabilities, of the same shape, and its
/// likeliest token differ from it.
fn compared(theirs: &Tensor, ours: &Tensor, likeliest: &Tensor) -> Result<Vec<Divergence>, EvalError> {
    let agreed = Vec::<bool>::try_from(theirs.f_argmax(-1, false)?.f_eq_tensor(likeliest)?)?;
    let theirs = theirs.f_log_softmax(-1, Kind::Float)?;
    let terms = theirs.f_exp()?.f_mul(&theirs.f_sub(ours)?)?;
    let kl = Vec::<f32>::try_from(terms.f_sum_dim_intlist(-1, false, Kind::Float)?)?;
    let one = |(kl, agreed)| Divergence { tokens: 1, kl: f64::from(kl), agreed: u64::from(agreed) };
    Ok(kl.into_iter().zip(agreed).map(one).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn predictions_are_compared_over_the_whole_vocabulary() {
        let theirs =
            Tensor::from_slice(&[0.5_f32.ln(), 0.5_f32.ln(), 0.9_f32.ln(), 0.1_f32.ln()]).view([2, 2]);
        let ours =
            Tensor::from_slice(&[0.25_f32.ln(), 0.75_f32.ln(), 0.9_f32.ln(), 0.1_f32.ln()]).view([2, 2]);
        let found = compared(&theirs, &ours, &ours.argmax(-1, false)).unwrap();
        // 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75)
        assert!((found[0].kl - 0.143_841).abs() < 1e-6 && found[1].kl.abs() < 1e-7, "{found:?}");
        assert_eq!(found.iter().map(|one| (one.tokens, one.agreed)).collect::<Vec<_>>(), [(1, 0), (1, 1)]);
    }

    #[test]
    fn a_token_sees_its_ancestors_and_itself() {
        let row = Row { ids: vec![0; 5], parents: vec![0, 0, 1, 2, 1], ..Row::default() };
        let expected: [[u8; 6]; 6] = [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [1, 1, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 1],
        ];
        let found = visible(&[row], 6);
        assert_eq!(found, expected.concat().iter().map(|&cell| cell == 1).collect::<Vec<_>>());
    }
}
