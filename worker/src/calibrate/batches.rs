//! The grid of micro-batches: a function of the samples' lengths alone, and the same for every number of samples
//! that is a multiple of [`Calibrate::GRID`].
//!
//! Ten samples at a time are sorted by length, longest first, and cut into batches whose rows differ little in
//! length. Rows are padded at the end, which a causal model does not see, and padding is in no figure.

use qpipe_nodes::kinds::Calibrate;
use tch::{Device, TchError, Tensor};

use crate::finite::is_finite;

/// Tokens of a batch with its padding, unless one sample alone is longer.
const LARGEST: usize = 4096;
/// Below this, an operation costs more than what it computes: padding is free.
const SMALL: usize = 512;

/// Samples that go through the model together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroBatch {
    /// Their numbers, the longest first.
    pub samples: Vec<usize>,
    /// Tokens of the longest.
    pub length: usize,
}

/// The micro-batches of all samples.
pub fn grid(sequences: &[Vec<i64>]) -> Vec<MicroBatch> {
    let numbers: Vec<usize> = (0..sequences.len()).collect();
    let mut batches = Vec::new();
    for ten in numbers.chunks(Calibrate::GRID as usize) {
        let mut ten = ten.to_vec();
        ten.sort_by_key(|&sample| std::cmp::Reverse(sequences[sample].len()));
        let mut open: Option<MicroBatch> = None;
        for sample in ten {
            let length = sequences[sample].len();
            match &mut open {
                Some(batch) if batch.takes(length) => batch.samples.push(sample),
                _ => batches.extend(open.replace(MicroBatch { samples: vec![sample], length })),
            }
        }
        batches.extend(open);
    }
    batches
}

/// How many micro-batches the first `samples` samples make, a multiple of the grid.
pub fn batches_of(grid: &[MicroBatch], samples: usize) -> usize {
    grid.iter().take_while(|batch| batch.samples.iter().all(|&sample| sample < samples)).count()
}

impl MicroBatch {
    /// Whether a sample of `length` tokens, no longer than those it holds, may join.
    fn takes(&self, length: usize) -> bool {
        let cells = (self.samples.len() + 1) * self.length;
        cells <= SMALL || (cells <= LARGEST && 8 * length >= 7 * self.length)
    }

    /// Places of tokens, padding included.
    pub fn cells(&self) -> u64 {
        (self.samples.len() * self.length) as u64
    }

    /// The batch as the model takes it.
    pub fn lay(&self, sequences: &[Vec<i64>], device: Device) -> Result<Laid, TchError> {
        let shape = [self.samples.len() as i64, self.length as i64];
        let mut ids = vec![0i64; self.samples.len() * self.length];
        let mut tokens: Vec<i64> = Vec::with_capacity(ids.len());
        let lengths = self.samples.iter().map(|&sample| sequences[sample].len() as i64).collect();
        for (row, &sample) in self.samples.iter().enumerate() {
            let start = row * self.length;
            let sequence = &sequences[sample];
            ids[start..start + sequence.len()].copy_from_slice(sequence);
            tokens.extend((start..start + sequence.len()).map(|cell| cell as i64));
        }
        let padded = tokens.len() < ids.len();
        let positions = Tensor::f_arange(shape[1], (tch::Kind::Int64, device))?;
        Ok(Laid {
            ids: Tensor::f_from_slice(&ids)?.f_view(shape)?.f_to_device(device)?,
            positions: positions.f_unsqueeze(0)?.f_repeat([shape[0], 1])?,
            tokens: if padded { Some(Tensor::f_from_slice(&tokens)?.f_to_device(device)?) } else { None },
            lengths,
        })
    }
}

/// A micro-batch of B samples, the longest of T tokens.
#[derive(Debug)]
pub struct Laid {
    /// i64 [B, T].
    pub ids: Tensor,
    /// i64 [B, T], from 0 in each row.
    pub positions: Tensor,
    /// i64: the places of what is no padding in the flattened [B T]; `None` where nothing is.
    tokens: Option<Tensor>,
    /// Tokens of each row without padding.
    lengths: Vec<i64>,
}

impl Laid {
    /// The tokens of `x` [B, T, K] without padding, [M, K].
    pub fn tokens_of(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let width = x.size().last().copied().unwrap_or(0);
        let flat = x.f_reshape([-1, width])?;
        match &self.tokens {
            Some(tokens) => flat.f_index_select(0, tokens),
            None => Ok(flat),
        }
    }

    /// The first row of `x` [B, T, K] with a value that is not finite, padding aside.
    pub fn first_not_finite(&self, x: &Tensor) -> Result<Option<usize>, TchError> {
        for (row, &length) in self.lengths.iter().enumerate() {
            if !is_finite(&x.f_get(row as i64)?.f_narrow(0, 0, length)?)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn sequences(lengths: &[usize]) -> Vec<Vec<i64>> {
        lengths.iter().map(|&length| (1..=length as i64).collect()).collect()
    }

    #[test]
    fn the_grid_of_more_samples_begins_with_that_of_fewer() {
        let lengths: Vec<usize> = (0..57).map(|i| 20 + i * 37 % 300).collect();
        let all = sequences(&lengths);
        let whole = grid(&all);
        for count in [10, 20, 50] {
            let fewer = grid(&all[..count]);
            assert_eq!(fewer, whole[..fewer.len()]);
            assert_eq!(batches_of(&whole, count), fewer.len());
        }
        let mut seen: Vec<usize> = whole.iter().flat_map(|batch| batch.samples.clone()).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..57));
    }

    #[test]
    fn rows_of_a_batch_differ_little_unless_they_are_short() {
        let lengths = |batches: Vec<MicroBatch>| -> Vec<usize> {
            batches.iter().map(|batch| batch.samples.len()).collect()
        };
        assert_eq!(lengths(grid(&sequences(&[30, 20, 25, 5, 28, 22, 21, 27, 29, 1]))), [10]);
        assert_eq!(lengths(grid(&sequences(&[256; 10]))), [10]);
        assert_eq!(lengths(grid(&sequences(&[2048; 10]))), [2, 2, 2, 2, 2]);
        assert_eq!(lengths(grid(&sequences(&[1000, 999, 500, 490, 10, 9]))), [2, 2, 2]);
    }

    #[test]
    fn padding_is_left_out() {
        let all = sequences(&[2, 3]);
        let laid = grid(&all)[0].lay(&all, Device::Cpu).unwrap();
        assert_eq!(Vec::<Vec<i64>>::try_from(&laid.ids).unwrap(), [[1, 2, 3], [1, 2, 0]]);
        assert_eq!(Vec::<Vec<i64>>::try_from(&laid.positions).unwrap(), [[0, 1, 2], [0, 1, 2]]);
        let tokens = laid.tokens_of(&laid.ids.unsqueeze(2)).unwrap();
        assert_eq!(Vec::<i64>::try_from(tokens.view([-1])).unwrap(), [1, 2, 3, 1, 2]);
    }

    #[test]
    fn the_row_that_is_not_finite_is_found_and_padding_is_passed_over() {
        let all = sequences(&[2, 3]);
        let laid = grid(&all)[0].lay(&all, Device::Cpu).unwrap();
        let with_nan = |row: i64, token: i64| {
            let x = Tensor::zeros([2, 3, 4], (tch::Kind::Float, Device::Cpu));
            let _ = x.get(row).get(token).narrow(0, 1, 1).fill_(f64::NAN);
            laid.first_not_finite(&x).unwrap()
        };
        assert_eq!((with_nan(0, 2), with_nan(1, 1)), (Some(0), Some(1)));
        assert_eq!(with_nan(1, 2), None);
    }
}
