//! Rows of activations as outer products read them.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::shared::Shared;
use super::threads::{VALUES_ALONE, in_parts, parts};

/// Rows of a block at most: with two vectors of output channels, their sums fill twelve of AVX2's sixteen registers.
pub(crate) const ROWS: usize = 6;
/// Output channels beside a block.
pub(crate) const CHANNELS: usize = 16;
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

/// Blocks of `R` rows, of which the last may have fewer, each [width, rows].
#[derive(Debug)]
pub(crate) struct Blocks<T, const R: usize = ROWS> {
    values: Box<[T]>,
    rows: usize,
    width: usize,
}

impl<T: Copy + Default + Send, const R: usize> Blocks<T, R> {
    /// `row` gives the values of a row, `width` of them or fewer: the others are the default.
    pub(crate) fn new<I: Iterator<Item = T>>(
        rows: usize,
        width: usize,
        row: impl Fn(usize) -> I + Sync,
    ) -> Self {
        let fill = |some: Range<usize>, block: &mut [MaybeUninit<T>]| {
            let count = some.len();
            for (place, index) in some.enumerate() {
                let mut row = row(index);
                for slot in block.iter_mut().skip(place).step_by(count) {
                    slot.write(row.next().unwrap_or_default());
                }
            }
        };
        // SAFETY: every slot of every row is written.
        unsafe { Self::filled(rows, width, fill) }
    }

    /// `fill` writes the values of some rows.
    ///
    /// # Safety
    ///
    /// It writes all.
    pub(crate) unsafe fn filled(
        rows: usize,
        width: usize,
        fill: impl Fn(Range<usize>, &mut [MaybeUninit<T>]) + Sync,
    ) -> Self {
        // Not filled with anything before: that would be one thread's work.
        let mut values = Box::new_uninit_slice(rows * width);
        let shared = Shared::new(&mut values);
        in_parts(rows.div_ceil(R), 1, VALUES_ALONE / (R * width).max(1), |range| {
            for block in range {
                let some = block * R..rows.min((block + 1) * R);
                // SAFETY: each block is given to one thread.
                let block = unsafe { shared.part(some.start * width, some.len() * width) };
                fill(some, block);
            }
        });
        // SAFETY: each value belongs to a row of a block, and was written, as the caller promises.
        Self { values: unsafe { values.assume_init() }, rows, width }
    }

    /// The blocks: the number of the first row, how many rows, and the values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, usize, &[T])> {
        let blocks = self.values.chunks((R * self.width).max(1)).zip((0..).step_by(R));
        blocks.map(|(values, first)| (first, R.min(self.rows - first), values))
    }
}

/// A call with the number of a block's rows known when it is compiled.
macro_rules! with_rows {
    ($rows:expr, [$($count:literal)*], $function:ident $arguments:tt) => {
        match $rows {
            $($count => $function::<$count> $arguments,)*
            more => unreachable!("a block of {more} rows"),
        }
    };
    ($type:ident, $rows:expr, [$($count:literal)*], $function:ident $arguments:tt) => {
        match $rows {
            $($count => $function::<$type, $count> $arguments,)*
            more => unreachable!("a block of {more} rows"),
        }
    };
}
pub(crate) use with_rows;
