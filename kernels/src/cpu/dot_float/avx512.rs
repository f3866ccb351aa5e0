//! Products and unpacking of [`super`] with AVX-512, whose permutations look a code of four bits up in one step.

use std::arch::x86_64::*;

use half::bf16;

use super::super::few::MOST_ROWS;
use super::super::nibbles::{BYTES, CHUNK, Order, WORDS};
use super::super::vectors::{loaded, rounded};
use super::{Block, Channel, Nibbles};

/// See [`super::four_bits`], which has checked the lengths.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn four_bits<const M: usize>(rows: [&[f32]; M], block: Block<'_>, found: &mut [[f32; MOST_ROWS]]) {
    for (channel, found) in block.channels().zip(found) {
        let sums = match channel.nibbles {
            Nibbles::Integers { zeros: None } => of_groups::<M, false>(rows, channel, whole_numbers(8), &[]),
            Nibbles::Integers { zeros: Some(zeros) } => {
                of_groups::<M, true>(rows, channel, whole_numbers(0), zeros)
            }
            Nibbles::Table(table) => {
                // SAFETY: the table has sixteen values.
                let values = unsafe { _mm512_loadu_ps(table.values.as_ptr()) };
                of_groups::<M, false>(rows, channel, values, &[])
            }
        };
        found[..M].copy_from_slice(&sums);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn of_groups<const M: usize, const ZEROS: bool>(
    rows: [&[f32]; M],
    channel: Channel<'_>,
    values: __m512,
    zeros: &[u8],
) -> [f32; M] {
    const HALF: usize = WORDS / 2;
    match channel.group {
        group if group.is_multiple_of(WORDS) => sums::<M, ZEROS, WORDS>(rows, channel, values, zeros),
        HALF => sums::<M, ZEROS, HALF>(rows, channel, values, zeros),
        _ => sums::<M, ZEROS, CHUNK>(rows, channel, values, zeros),
    }
}

/// `values` of codes times activations: the eight of each word are summed, then scaled by the word's group, and added up. With zeros,
/// what they take off is the sum of a word's activations times its group's. Groups are multiples of `SPAN`, or it themselves where
/// it is half a vector.
#[target_feature(enable = "avx512f,avx512bw")]
fn sums<const M: usize, const ZEROS: bool, const SPAN: usize>(
    rows: [&[f32]; M],
    channel: Channel<'_>,
    values: __m512,
    zeros: &[u8],
) -> [f32; M] {
    assert!(rows.iter().all(|row| row.len() == (2 * channel.bytes.len()).next_multiple_of(WORDS)));
    let mut totals = [_mm512_setzero_ps(); M];
    let mut place = Place { index: 0, group: 0, done: 0 };
    for bytes in channel.bytes.chunks(WORDS / 2) {
        let words = loaded(bytes);
        // The permutation reads the lower four bits.
        let weights = [
            words,
            _mm512_srli_epi32::<4>(words),
            _mm512_srli_epi32::<8>(words),
            _mm512_srli_epi32::<12>(words),
            _mm512_srli_epi32::<16>(words),
            _mm512_srli_epi32::<20>(words),
            _mm512_srli_epi32::<24>(words),
            _mm512_srli_epi32::<28>(words),
        ]
        .map(|codes| _mm512_permutexvar_ps(codes, values));
        let scales = place.of_words::<SPAN, _>(channel.group, channel.scales);
        let zeros = if ZEROS { place.of_words::<SPAN, _>(channel.group, zeros) } else { _mm512_setzero_ps() };
        for (total, row) in totals.iter_mut().zip(rows) {
            let mut sums = [_mm512_setzero_ps(); 2];
            let mut activations = [_mm512_setzero_ps(); 2];
            for (nibble, &weights) in weights.iter().enumerate() {
                // SAFETY: a row has values for each word, see above.
                let x = unsafe { _mm512_loadu_ps(row.as_ptr().add(place.index * WORDS + 16 * nibble)) };
                sums[nibble % 2] = _mm512_fmadd_ps(x, weights, sums[nibble % 2]);
                if ZEROS {
                    activations[nibble % 2] = _mm512_add_ps(activations[nibble % 2], x);
                }
            }
            let mut sum = _mm512_add_ps(sums[0], sums[1]);
            if ZEROS {
                sum = _mm512_fnmadd_ps(zeros, _mm512_add_ps(activations[0], activations[1]), sum);
            }
            *total = _mm512_fmadd_ps(sum, scales, *total);
        }
        place.advance(channel.group);
    }
    totals.map(|total| _mm512_reduce_add_ps(total))
}

/// Where a vector of words lies among the groups. (To divide for each of them would take longer than its products.)
struct Place {
    index: usize,
    /// Of whole vectors: the group that they are in, and how many weights of it went by.
    group: usize,
    done: usize,
}

impl Place {
    /// Of each word the value of its group; any beyond the last.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn of_words<const SPAN: usize, T: Copy + Into<f32>>(&self, group: usize, values: &[T]) -> __m512 {
        let at = |group: usize| -> f32 { values[group.min(values.len() - 1)].into() };
        if SPAN == WORDS {
            return _mm512_set1_ps(at(self.group));
        }
        if 2 * SPAN == WORDS {
            let halves = [2 * self.index, 2 * self.index + 1].map(|group| _mm512_set1_ps(at(group)));
            return _mm512_mask_blend_ps(0xFF00, halves[0], halves[1]);
        }
        let of_chunk = |chunk: usize| at((self.index * WORDS + chunk * CHUNK) / group);
        let four = _mm_setr_ps(of_chunk(0), of_chunk(1), of_chunk(2), of_chunk(3));
        let chunk_of_word = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        _mm512_permutexvar_ps(chunk_of_word, _mm512_castps128_ps512(four))
    }

    /// To the next vector.
    #[inline]
    fn advance(&mut self, group: usize) {
        self.index += 1;
        self.done += WORDS;
        if self.done >= group {
            (self.group, self.done) = (self.group + 1, 0);
        }
    }
}

/// 0 to 15, less `zero`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn whole_numbers(zero: i32) -> __m512 {
    let codes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, _mm512_set1_epi32(zero)))
}

/// See [`super::unpack_four_bits`], for weights in bfloat16.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn unpack_four_bits(channel: Channel<'_>, order: Order, weights: &mut [bf16]) {
    let groups = weights.chunks_exact_mut(channel.group).zip(channel.bytes.chunks_exact(channel.group / 2));
    for ((group, &scale), (weights, bytes)) in channel.scales.iter().enumerate().zip(groups) {
        let scaled = _mm512_mul_ps(values(channel.nibbles, group), _mm512_set1_ps(scale));
        look_up(rounded(scaled), bytes, order, weights);
    }
}

/// What codes of a group stand for, unscaled.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn values(nibbles: Nibbles<'_>, group: usize) -> __m512 {
    match nibbles {
        Nibbles::Integers { zeros } => whole_numbers(zeros.map_or(8, |zeros| i32::from(zeros[group]))),
        // SAFETY: the table has sixteen values.
        Nibbles::Table(table) => unsafe { _mm512_loadu_ps(table.values.as_ptr()) },
    }
}

/// Of each code in `bytes`, whole chunks of them, its entry in a table of sixteen.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn look_up(table: __m256i, bytes: &[u8], order: Order, weights: &mut [bf16]) {
    // The upper half is the lower one again: of an index the lower five bits count, of which codes have four.
    let table = _mm512_broadcast_i64x4(table);
    let half = _mm512_set1_epi32(0x000F_000F);
    for (weights, bytes) in weights.chunks_exact_mut(CHUNK).zip(bytes.chunks_exact(BYTES)) {
        // SAFETY: sixteen bytes are read from sixteen.
        let bytes = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
        // The first code of a byte to the lower 16 bits, the second to the upper ones.
        let codes = match order {
            Order::LowFirst => _mm512_or_si512(bytes, _mm512_slli_epi32::<12>(bytes)),
            Order::HighFirst => {
                _mm512_or_si512(_mm512_srli_epi32::<4>(bytes), _mm512_slli_epi32::<16>(bytes))
            }
        };
        let found = _mm512_permutexvar_epi16(_mm512_and_si512(codes, half), table);
        // SAFETY: 32 numbers of two bytes.
        unsafe { _mm512_storeu_si512(weights.as_mut_ptr().cast(), found) };
    }
}
