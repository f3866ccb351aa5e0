//! Which rows make up a step, and how they lie in a batch.
//!
//! The order is a function of the seed alone: epoch after epoch, each its own permutation, read as one long
//! stream. Step s takes the rows from s R to (s + 1) R of it (R = rows a micro-batch times micro-batches), so
//! a run that resumes at step s needs nothing but s.
//!
//! Within a step rows are sorted by length before they are cut into micro-batches: the step's loss is a sum over
//! all its tokens, so this changes no figure and saves padding. Short rows are then laid behind one another
//! (first fit, longest first) in sequences as long as the longest row, with positions that start anew and a
//! mask under which a row sees only itself.

use tch::{Device, Tensor};

use super::encode::Sample;
use crate::data::random::Random;
use crate::model::Attention;

/// Sequences longer than this hold one row each: the mask of a packed batch grows with the square of its length.
const PACKING_LIMIT: usize = 1024;

/// Stream number of the order of rows, see [`Random::new`].
const ORDER_STREAM: u64 = 1 << 32;

/// The order in which rows are read.
#[derive(Debug)]
pub struct Order {
    rows: usize,
    total: u64,
    rows_per_step: u64,
    seed: u64,
    epoch: Option<(u64, Vec<u32>)>,
}

impl Order {
    /// `rows` rows read until `total` of them were taken (with repetition), `rows_per_step` a step.
    pub fn new(rows: usize, total: u64, rows_per_step: u64, seed: u64) -> Self {
        Self { rows, total, rows_per_step, seed, epoch: None }
    }

    /// Steps in all; the last may have fewer rows.
    pub fn steps(&self) -> u64 {
        self.total.div_ceil(self.rows_per_step)
    }

    /// The rows of step `step`, from 0.
    pub fn step(&mut self, step: u64) -> Vec<usize> {
        let from = (step * self.rows_per_step).min(self.total);
        let to = (from + self.rows_per_step).min(self.total);
        (from..to).map(|place| self.row_at(place)).collect()
    }

    fn row_at(&mut self, place: u64) -> usize {
        let epoch = place / self.rows as u64;
        let within = (place % self.rows as u64) as usize;
        match &self.epoch {
            Some((known, order)) if *known == epoch => order[within] as usize,
            _ => {
                let order = Random::new(self.seed, ORDER_STREAM + epoch).permutation(self.rows);
                let row = order[within] as usize;
                self.epoch = Some((epoch, order));
                row
            }
        }
    }
}

/// Sorts a step's rows by length, longest first, and cuts them into micro-batches of `batch_size`.
pub fn micro_batches<'a>(samples: &'a [Sample], rows: &[usize], batch_size: usize) -> Vec<Vec<&'a Sample>> {
    let mut rows: Vec<&Sample> = rows.iter().map(|row| &samples[*row]).collect();
    rows.sort_by_key(|sample| std::cmp::Reverse(sample.ids.len()));
    rows.chunks(batch_size).map(<[_]>::to_vec).collect()
}

/// A micro-batch as the model takes it: B sequences of T tokens, M of them predict a token to be learned.
#[derive(Debug)]
pub struct Batch {
    /// [B, T] i64.
    pub ids: Tensor,
    /// [B, T] i64, from 0 in each row.
    pub positions: Tensor,
    /// Who sees whom.
    pub attention: Attention,
    /// `[M]` i64: places in the flattened [B * T] whose successor is to be learned.
    pub predictors: Tensor,
    /// `[M]` i64: those successors.
    pub labels: Tensor,
    /// Tokens without padding.
    pub tokens: usize,
}

/// Lays rows into sequences: for each sequence the indices of its rows. `lengths` falls.
fn pack(lengths: &[usize]) -> Vec<Vec<usize>> {
    let capacity = lengths.first().copied().unwrap_or(0);
    let mut sequences: Vec<(usize, Vec<usize>)> = Vec::new();
    for (row, length) in lengths.iter().enumerate() {
        let fitting = sequences.iter_mut().find(|(free, _)| capacity <= PACKING_LIMIT && free >= length);
        match fitting {
            Some((free, rows)) => {
                *free -= length;
                rows.push(row);
            }
            None => sequences.push((capacity - length, vec![row])),
        }
    }
    sequences.into_iter().map(|(_, rows)| rows).collect()
}

impl Batch {
    /// Lays `rows`, the longest first, into one batch on `device`.
    pub fn new(rows: &[&Sample], device: Device) -> Result<Self, tch::TchError> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        let length = lengths.first().copied().unwrap_or(0);
        let sequences = pack(&lengths);
        let cells = sequences.len() * length;
        let mut ids = vec![0i64; cells];
        let mut positions = vec![0i64; cells];
        // Which row of its sequence a place belongs to; padding is a row of its own, so that every place sees
        // at least itself and no softmax is over nothing.
        let mut owner = vec![-1i64; cells];
        let mut predictors = Vec::new();
        let mut labels = Vec::new();
        for (sequence, members) in sequences.iter().enumerate() {
            let mut start = sequence * length;
            for (number, row) in (0i64..).zip(members) {
                let sample = rows[*row];
                for (offset, id) in sample.ids.iter().enumerate() {
                    ids[start + offset] = *id;
                    positions[start + offset] = offset as i64;
                    owner[start + offset] = number;
                    if offset > 0 && sample.learn[offset] {
                        predictors.push((start + offset - 1) as i64);
                        labels.push(*id);
                    }
                }
                start += sample.ids.len();
            }
        }
        let shape = [sequences.len() as i64, length as i64];
        let attention = if sequences.iter().all(|members| members.len() == 1) {
            Attention::Causal
        } else {
            let owner = Tensor::from_slice(&owner).view(shape).to_device(device);
            let same = owner.f_unsqueeze(2)?.f_eq_tensor(&owner.f_unsqueeze(1)?)?;
            Attention::Mask(same.f_tril(0)?.f_unsqueeze(1)?)
        };
        let tokens = lengths.iter().sum();
        Ok(Self {
            ids: Tensor::from_slice(&ids).view(shape).to_device(device),
            positions: Tensor::from_slice(&positions).view(shape).to_device(device),
            attention,
            predictors: Tensor::from_slice(&predictors).to_device(device),
            labels: Tensor::from_slice(&labels).to_device(device),
            tokens,
        })
    }

    /// M: tokens to be learned.
    pub fn targets(&self) -> i64 {
        self.labels.size().first().copied().unwrap_or(0)
    }

    /// Picks the hidden states [M, H] that predict the learned tokens out of [B, T, H].
    pub fn select(&self, hidden: &Tensor) -> Result<Tensor, tch::TchError> {
        let width = hidden.size().last().copied().unwrap_or(0);
        hidden.f_reshape([-1, width])?.f_index_select(0, &self.predictors)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn sample(ids: &[i64], from: usize) -> Sample {
        Sample { ids: ids.to_vec(), learn: (0..ids.len()).map(|place| place >= from).collect() }
    }

    #[test]
    fn each_epoch_reads_every_row_once_in_another_order() {
        let mut order = Order::new(10, 20, 5, 42);
        assert_eq!(order.steps(), 4);
        let mut epochs = [Vec::new(), Vec::new()];
        for step in 0..4 {
            epochs[step as usize / 2].extend(order.step(step));
        }
        assert_ne!(epochs[0], epochs[1]);
        for mut epoch in epochs {
            epoch.sort_unstable();
            assert!(epoch.into_iter().eq(0..10));
        }
    }

    #[test]
    fn a_step_is_the_same_whether_or_not_the_ones_before_were_read() {
        let mut straight = Order::new(7, 100, 4, 1);
        let all: Vec<_> = (0..straight.steps()).map(|step| straight.step(step)).collect();
        assert_eq!(Order::new(7, 100, 4, 1).step(19), all[19]);
        assert_ne!(Order::new(7, 100, 4, 2).step(19), all[19]);
    }

    #[test]
    fn the_last_step_of_whole_epochs_is_short() {
        let mut order = Order::new(10, 10, 4, 0);
        assert_eq!((order.steps(), order.step(2).len(), order.step(3).len()), (3, 2, 0));
    }

    #[test]
    fn short_rows_share_a_sequence_and_do_not_see_each_other() {
        let rows = [sample(&[1, 2, 3, 4, 5], 0), sample(&[6, 7, 8], 2), sample(&[9, 10], 1)];
        let batch = Batch::new(&rows.iter().collect::<Vec<_>>(), Device::Cpu).unwrap();
        assert_eq!(Vec::<Vec<i64>>::try_from(&batch.ids).unwrap(), [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]);
        assert_eq!(Vec::<Vec<i64>>::try_from(&batch.positions).unwrap(), [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]);
        assert_eq!(Vec::<i64>::try_from(&batch.predictors).unwrap(), [0, 1, 2, 3, 6, 8]);
        assert_eq!(Vec::<i64>::try_from(&batch.labels).unwrap(), [2, 3, 4, 5, 8, 10]);
        let Attention::Mask(mask) = &batch.attention else { panic!("packed rows need a mask") };
        let seen = Vec::<bool>::try_from(mask.get(1).get(0).get(3)).unwrap();
        assert_eq!(seen, [false, false, false, true, false]);
        assert_eq!((batch.tokens, batch.targets()), (10, 6));
    }

    #[test]
    fn rows_of_one_length_need_no_mask() {
        let rows = [sample(&[1, 2], 0), sample(&[3, 4], 0)];
        let batch = Batch::new(&rows.iter().collect::<Vec<_>>(), Device::Cpu).unwrap();
        assert!(matches!(batch.attention, Attention::Causal));
    }

    #[test]
    fn micro_batches_are_sorted_by_length() {
        let samples = [sample(&[1], 0), sample(&[1, 2, 3], 0), sample(&[1, 2], 0)];
        let lengths: Vec<Vec<usize>> = micro_batches(&samples, &[0, 1, 2], 2)
            .iter()
            .map(|batch| batch.iter().map(|sample| sample.ids.len()).collect())
            .collect();
        assert_eq!(lengths, [vec![3, 2], vec![1]]);
    }
}
