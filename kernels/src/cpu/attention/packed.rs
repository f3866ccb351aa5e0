//! Keys and values of one head as the unit multiplies them.

use super::heads::Heads;
use crate::attention::KEYS;
use crate::cpu::fours::{CHANNELS, Strip};
use crate::cpu::outer_wide::{Factor, bytes_of};

// A word of a mask has a bit for each key of a strip.
const _: () = assert!(KEYS == CHANNELS);

/// Some numbers of a token's values, for two vectors.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Values(pub(super) [f32; CHANNELS]);

/// The keys and values of a sequence and head, [`KEYS`] tokens at a time; zeros in place of those that are missing.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    keys: usize,
    strips: Vec<Strip>,
    /// Of each strip's tokens, [parts, tokens].
    values: Vec<Values>,
    /// Of a head's width.
    parts: usize,
}

impl Packed {
    /// Packs the keys and values of a sequence and head.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512.
    pub(super) unsafe fn fill<T: Factor>(
        &mut self,
        (keys, values): &(Heads<'_, T>, Heads<'_, T>),
        sequence: usize,
        head: usize,
    ) {
        let [_, _, count, width] = keys.size();
        (self.keys, self.parts) = (count, width.div_ceil(CHANNELS));
        self.strips.resize_with(count.div_ceil(KEYS), Strip::default);
        self.values.clear();
        self.values.resize(self.strips.len() * KEYS * self.parts, Values::default());
        let of_strip = self.values.chunks_mut((KEYS * self.parts).max(1));
        for ((strip, kept), first) in self.strips.iter_mut().zip(of_strip).zip((0..).step_by(KEYS)) {
            let tokens = first..count.min(first + KEYS);
            let rows: Vec<&[i8]> =
                tokens.clone().map(|token| bytes_of(keys.row([sequence, head, token]))).collect();
            // SAFETY: the caller promises it.
            unsafe { strip.fill(&rows, width * size_of::<T>()) };
            for (place, token) in tokens.enumerate() {
                let parts = values.row([sequence, head, token]).chunks(CHANNELS);
                for (numbers, kept) in parts.zip(kept.iter_mut().skip(place).step_by(KEYS)) {
                    kept.0.iter_mut().zip(numbers).for_each(|(kept, number)| *kept = number.wide());
                }
            }
        }
    }

    /// How many there are.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.strips.iter().map(|strip| size_of_val(strip.all())).sum::<usize>()
            + size_of_val(self.values.as_slice())
    }

    /// The strips of keys.
    pub(super) fn strips(&self) -> &[Strip] {
        &self.strips
    }

    /// One part of the values of a strip's first `tokens`.
    #[inline]
    pub(super) fn values(&self, strip: usize, part: usize, tokens: usize) -> &[Values] {
        &self.values[(strip * self.parts + part) * KEYS..][..tokens]
    }
}
