//! Rows of activations as outer products read them.

use super::shared::Shared;
use super::threads::{in_parts, parts};

/// Rows of a block at most: with two vectors of output channels, their sums fill twelve of AVX2's sixteen registers.
pub(crate) const ROWS: usize = 6;
/// Output channels beside a block.
pub(crate) const CHANNELS: usize = 16;
/// Values that one thread brings into blocks without waking another.
const ALONE: usize = 1 << 15;
/// Bytes of weights that are gone through with one block: they stay in the second-level cache.
const KEPT_BYTES: usize = 256 << 10;
/// Strips that these are at most.
const MOST_STRIPS: usize = 4;

/// How many strips, of so many bytes each, are kept at one time of a weight that has `count` of them: not so many that
/// threads stand idle.
pub(crate) fn strips(bytes: usize, count: usize) -> usize {
    let fair = count / parts();
    (KEPT_BYTES / bytes.max(1)).min(fair).clamp(1, MOST_STRIPS)
}

/// Blocks of [`ROWS`] rows, of which the last may have fewer, each [width, rows].
#[derive(Debug)]
pub(crate) struct Blocks<T> {
    values: Vec<T>,
    rows: usize,
    width: usize,
}

impl<T: Copy + Default + Send> Blocks<T> {
    /// `row` gives the `width` values of a row.
    pub(crate) fn new<I: Iterator<Item = T>>(
        rows: usize,
        width: usize,
        row: impl Fn(usize) -> I + Sync,
    ) -> Self {
        let mut values = vec![T::default(); rows * width];
        let shared = Shared::new(&mut values);
        in_parts(rows.div_ceil(ROWS), 1, ALONE / (ROWS * width).max(1), |range| {
            for block in range {
                let some = block * ROWS..rows.min((block + 1) * ROWS);
                // SAFETY: each block is given to one thread.
                let block = unsafe { shared.part(some.start * width, some.len() * width) };
                for (place, index) in some.clone().enumerate() {
                    for (slot, value) in block.iter_mut().skip(place).step_by(some.len()).zip(row(index)) {
                        *slot = value;
                    }
                }
            }
        });
        Self { values, rows, width }
    }

    /// The blocks: the number of the first row, how many rows, and the values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, usize, &[T])> {
        let blocks = self.values.chunks((ROWS * self.width).max(1)).zip((0..).step_by(ROWS));
        blocks.map(|(values, first)| (first, ROWS.min(self.rows - first), values))
    }
}

/// A call with the number of a block's rows known when it is compiled.
macro_rules! with_rows {
    ($rows:expr, $function:ident($($argument:expr),*)) => {
        match $rows {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            4 => $function::<4>($($argument),*),
            5 => $function::<5>($($argument),*),
            _ => $function::<6>($($argument),*),
        }
    };
}
pub(crate) use with_rows;
