//! A block of queries on its way over keys and values.

use std::arch::x86_64::*;

use super::packed::Packed;
use crate::attention::{KEYS, View};
use crate::cpu::blocks::with_rows;
use crate::cpu::fours::{CHANNELS, Line, ROWS, TERMS, in_turn};
use crate::cpu::outer_wide::{Factor, bytes_of, part};

/// Strips whose scores stand in memory at one time: 12 KiB with those of all rows.
const STRIPS: usize = 8;
/// From a row's scores to those of the next: not a power of two, so that rows do not fall on the same lines of the cache.
const APART: usize = STRIPS * KEYS + 16;

/// A query, what it sees of its own keys, and where its result goes.
#[derive(Debug)]
pub(super) struct Query<'a, T> {
    /// `[D]`.
    pub(super) values: &'a [T],
    /// Of the own keys.
    pub(super) sees: View<'a>,
    /// `[D]`.
    pub(super) y: &'a mut [T],
}

/// Keys and values that a block goes over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    /// Them.
    pub(super) held: &'a Packed,
    /// What all queries see of them, where it is not what each says.
    pub(super) sees: Option<View<'a>>,
}

/// Scores of a row, and what becomes of them: weights.
#[derive(Debug)]
#[repr(C, align(64))]
struct Scores([[f32; APART]; ROWS]);

/// Room for the rows of a block, and what they have attended to so far.
#[derive(Debug)]
pub(super) struct Block {
    width: usize,
    /// Words [D, rows] of the queries, the width filled up to whole parts of a strip.
    words: Vec<i32>,
    scores: Box<Scores>,
    /// Strips whose scores these are.
    slots: Vec<Slot>,
    /// Whether a row sees any of their keys: a bit is set.
    seen: [u32; ROWS],
    /// Of each row: the largest score, times [`Block::factor`].
    most: [f32; ROWS],
    /// Sums of the weights, still in sixteen parts.
    sums: [[f32; 16]; ROWS],
    /// Sums of the weighted values, [parts, rows].
    found: Vec<[[f32; CHANNELS]; ROWS]>,
}

/// A strip that a row sees something of.
#[derive(Clone, Copy, Debug)]
struct Slot {
    strip: usize,
    /// So many of its keys: the last one is seen.
    keys: usize,
}

impl Block {
    /// For heads of `width` numbers.
    pub(super) fn new(width: usize) -> Self {
        let row = [0.0; APART];
        Self {
            width,
            words: Vec::new(),
            scores: Box::new(Scores([row; ROWS])),
            slots: Vec::with_capacity(STRIPS),
            seen: [0; ROWS],
            most: [0.0; ROWS],
            sums: [[0.0; 16]; ROWS],
            found: vec![[[0.0; CHANNELS]; ROWS]; width.div_ceil(CHANNELS)],
        }
    }

    /// Lets at most [`ROWS`] queries attend to all parts.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512 BF16.
    pub(super) unsafe fn attend<'a, T: Factor>(
        &mut self,
        queries: &mut [Query<'_, T>],
        parts: impl Iterator<Item = Part<'a>>,
    ) {
        // SAFETY: the caller promises it.
        unsafe { with_rows!(T, queries.len(), [1 2 3 4 5 6 7 8 9 10 11 12], attend(self, queries, parts)) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn attend<'a, T: Factor, const R: usize>(
    block: &mut Block,
    queries: &mut [Query<'_, T>],
    parts: impl Iterator<Item = Part<'a>>,
) {
    let queries: &mut [Query<'_, T>; R] = queries.try_into().expect("a block has so many queries");
    block.begin(queries);
    for part in parts {
        let views = queries.each_ref().map(|query| part.sees.unwrap_or(query.sees));
        for (index, strip) in part.held.strips().iter().enumerate() {
            let marks = views.map(|view| view.word(index));
            if marks != [0; R] {
                block.score::<T, R>(index, strip.all(), marks);
            }
            // At the same places whatever was left out: what comes of a query does not depend on those beside it.
            if index % STRIPS == STRIPS - 1 {
                block.take_in::<R>(part.held);
            }
        }
        block.take_in::<R>(part.held);
    }
    for (row, query) in queries.iter_mut().enumerate() {
        let sum: f32 = block.sums[row].iter().sum();
        for (y, found) in query.y.chunks_mut(CHANNELS).zip(&block.found) {
            y.iter_mut().zip(&found[row]).for_each(|(y, found)| *y = T::narrow(found / sum));
        }
    }
}

impl Block {
    /// What scores are multiplied by, so that the weights of the softmax are powers of two.
    fn factor(&self) -> f32 {
        std::f32::consts::LOG2_E / (self.width as f32).sqrt()
    }

    /// Nothing is attended to yet.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn begin<T: Factor, const R: usize>(&mut self, queries: &[Query<'_, T>; R]) {
        let words = (self.width * size_of::<T>()).div_ceil(TERMS) * TERMS / size_of::<i32>() * R;
        self.words.clear();
        self.words.reserve(words);
        in_turn(
            &queries.each_ref().map(|query| bytes_of(query.values)),
            0,
            &mut self.words.spare_capacity_mut()[..words],
        );
        // SAFETY: `in_turn` has written them all.
        unsafe { self.words.set_len(words) };
        self.most = [f32::NEG_INFINITY; ROWS];
        self.sums = [[0.0; 16]; ROWS];
        self.found.iter_mut().for_each(|part| part[..R].fill([0.0; CHANNELS]));
    }

    /// Keeps the scores of one more strip, and those that `marks` hides as the least there are.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn score<T: Factor, const R: usize>(&mut self, strip: usize, lines: &[Line], marks: [u32; R]) {
        let scores = part::<T, R>(&self.words, lines);
        let hidden = _mm512_set1_ps(f32::NEG_INFINITY);
        let start = self.slots.len() * KEYS;
        for (row, (mark, scores)) in marks.into_iter().zip(scores).enumerate() {
            self.seen[row] |= mark;
            let kept = &mut self.scores.0[row][start..][..KEYS];
            for ((kept, score), mark) in
                kept.chunks_exact_mut(16).zip(scores).zip([mark as u16, (mark >> 16) as u16])
            {
                // SAFETY: sixteen numbers are 64 bytes.
                unsafe { _mm512_storeu_ps(kept.as_mut_ptr(), _mm512_mask_mov_ps(hidden, mark, score)) };
            }
        }
        let any = marks.iter().fold(0, |any, mark| any | mark);
        self.slots.push(Slot { strip, keys: KEYS - any.leading_zeros() as usize });
    }

    /// Adds the values of the strips whose scores are kept, by their weights.
    #[target_feature(enable = "avx512f")]
    fn take_in<const R: usize>(&mut self, held: &Packed) {
        if self.slots.is_empty() {
            return;
        }
        let shrunk = self.weigh::<R>();
        for (index, found) in self.found.iter_mut().enumerate() {
            let found = &mut found[..R];
            let mut sums: [[__m512; 2]; R] = std::array::from_fn(|row| {
                let by = _mm512_set1_ps(shrunk[row]);
                // SAFETY: sixteen numbers are 64 bytes.
                [0, 16]
                    .map(|first| unsafe { _mm512_mul_ps(_mm512_loadu_ps(found[row][first..].as_ptr()), by) })
            });
            for (slot, first) in self.slots.iter().zip((0..).step_by(KEYS)) {
                for (values, key) in held.values(slot.strip, index, slot.keys).iter().zip(first..APART) {
                    // SAFETY: sixteen numbers are 64 bytes, and begin at a multiple of them.
                    let values = [0, 16].map(|first| unsafe { _mm512_load_ps(values.0[first..].as_ptr()) });
                    for (scores, sums) in self.scores.0.iter().zip(&mut sums) {
                        let weight = _mm512_set1_ps(scores[key]);
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum = _mm512_fmadd_ps(weight, value, *sum);
                        }
                    }
                }
            }
            for (found, sums) in found.iter_mut().zip(sums) {
                for (found, sum) in found.chunks_exact_mut(16).zip(sums) {
                    // SAFETY: sixteen numbers are 64 bytes.
                    unsafe { _mm512_storeu_ps(found.as_mut_ptr(), sum) };
                }
            }
        }
        self.slots.clear();
        self.seen = [0; ROWS];
    }

    /// Makes weights of the scores, relative to each row's largest so far, and tells by how much those before have shrunk with it.
    #[target_feature(enable = "avx512f")]
    fn weigh<const R: usize>(&mut self) -> [f32; R] {
        let factor = self.factor();
        let count = self.slots.len() * KEYS;
        std::array::from_fn(|row| {
            let scores = &mut self.scores.0[row][..count];
            if self.seen[row] == 0 {
                scores.fill(0.0);
                return 1.0;
            }
            let mut most = _mm512_set1_ps(f32::NEG_INFINITY);
            for scores in scores.chunks_exact(16) {
                // SAFETY: sixteen numbers are 64 bytes.
                most = _mm512_max_ps(most, unsafe { _mm512_loadu_ps(scores.as_ptr()) });
            }
            let before = self.most[row];
            let most = before.max(_mm512_reduce_max_ps(most) * factor);
            self.most[row] = most;
            let shrunk = power(_mm512_set1_ps(before - most));
            let (by, most) = (_mm512_set1_ps(factor), _mm512_set1_ps(most));
            let sums = &mut self.sums[row];
            // SAFETY: sixteen numbers are 64 bytes.
            let mut sum = unsafe { _mm512_mul_ps(_mm512_loadu_ps(sums.as_ptr()), shrunk) };
            for scores in scores.chunks_exact_mut(16) {
                // SAFETY: likewise.
                unsafe {
                    let score = _mm512_loadu_ps(scores.as_ptr());
                    let weight = power(_mm512_fmsub_ps(score, by, most));
                    sum = _mm512_add_ps(sum, weight);
                    _mm512_storeu_ps(scores.as_mut_ptr(), weight);
                }
            }
            // SAFETY: likewise.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), sum) };
            _mm512_cvtss_f32(shrunk)
        })
    }
}

/// 2 to the power of each of `x`, which are 0 or less, or hardly more, or NaN; within two units of the last place.
#[inline]
#[target_feature(enable = "avx512f")]
fn power(x: __m512) -> __m512 {
    // Smaller ones give 0, too, and infinity has no fraction. The second operand is what is taken where one is NaN.
    let x = _mm512_max_ps(_mm512_set1_ps(-200.0), x);
    let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let rest = _mm512_sub_ps(x, whole);
    let mut sum = _mm512_set1_ps(TERMS_OF_POWER[0]);
    for &term in &TERMS_OF_POWER[1..] {
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(term));
    }
    _mm512_scalef_ps(sum, whole)
}

/// Those of the series of 2^x around 0, (ln 2)^n / n!, from the seventh down: between -1/2 and 1/2 the next one is below 1e-8.
const TERMS_OF_POWER: [f32; 8] = {
    let mut terms = [0.0; 8];
    let (mut term, mut n) = (1.0, 0);
    while n < 8 {
        terms[7 - n] = term as f32;
        n += 1;
        term *= std::f64::consts::LN_2 / n as f64;
    }
    terms
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;

    #[test]
    #[expect(clippy::print_stderr, reason = "a test says what it could not try")]
    fn powers_are_within_two_units_of_the_last_place() {
        if Isa::here() < Isa::Avx512 {
            return eprintln!("skipped: this processor has no AVX-512");
        }
        let mut numbers: Vec<f32> = (0..40_000).map(|index| index as f32 * -0.00379).collect();
        numbers.extend([-0.5, 0.5, 1e-3, -126.5, -149.0, -200.0, -1e30, f32::NEG_INFINITY, f32::NAN]);
        for x in numbers {
            // SAFETY: the processor has AVX-512.
            let found = unsafe { first_of_power(x) };
            let exact = f64::from(x).exp2();
            if x.is_nan() {
                assert!(found.is_nan());
                continue;
            }
            let unit = (exact * f64::from(f32::EPSILON)).max(f64::from(f32::from_bits(1)));
            assert!((f64::from(found) - exact).abs() <= 2.0 * unit, "{x}: {found:e}, not {exact:e}");
        }
    }

    #[target_feature(enable = "avx512f")]
    fn first_of_power(x: f32) -> f32 {
        _mm512_cvtss_f32(power(_mm512_set1_ps(x)))
    }
}
