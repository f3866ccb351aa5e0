//! Products of [`super`] with activations in bfloat16 by AVX-512 BF16: what the codes of a group stand for is rounded to bfloat16 once, as the
//! reference rounds weights (but for subnormal ones, which the product takes for 0); 32 codes are looked up by an instruction, and multiplied by another.

use std::arch::x86_64::*;

use half::bf16;

use super::super::few::MOST_ROWS;
use super::super::few::pairs::{VECTOR, add, joined};
use super::super::nibbles::WORDS;
use super::super::vectors::loaded;
use super::avx512::values;
use super::{Block, Channel};

/// Weights in half a vector: a table has room for those of two groups.
const HALF: usize = WORDS / 2;

/// Whether a table holds what codes of groups of so many stand for.
pub(super) fn serves(group: usize) -> bool {
    group.is_multiple_of(HALF)
}

/// See [`super::four_bits`], which has checked the lengths.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn four_bits<const M: usize>(
    rows: [&[bf16]; M],
    block: Block<'_>,
    found: &mut [[f32; MOST_ROWS]],
) {
    let is_whole = block.group.is_multiple_of(WORDS);
    for (channel, found) in block.channels().zip(found) {
        let sums = if is_whole { sums::<M, true>(rows, channel) } else { sums::<M, false>(rows, channel) };
        found[..M].copy_from_slice(&sums);
    }
}

/// With `WHOLE`, a vector is of one group; else its halves may be of two.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn sums<const M: usize, const WHOLE: bool>(rows: [&[bf16]; M], channel: Channel<'_>) -> [f32; M] {
    assert!(rows.iter().all(|row| row.len() == (2 * channel.bytes.len()).next_multiple_of(WORDS)));
    let code = _mm512_set1_epi16(15);
    let second = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(16));
    // Two of a row, so that one need not wait for the other.
    let (mut even, mut odd) = ([_mm512_setzero_ps(); M], [_mm512_setzero_ps(); M]);
    let mut place = Place { group: 0, left: channel.group };
    for (index, bytes) in channel.bytes.chunks(WORDS / 2).enumerate() {
        let words = loaded(bytes);
        // Of each 16 bits the permutation reads the lower five, of which a code has four. Where both halves of the table are alike,
        // it does not matter what the fifth is.
        let table = if WHOLE {
            let group = weights(channel, place.next::<WORDS>(channel.group));
            joined(group, group)
        } else {
            let first = weights(channel, place.next::<HALF>(channel.group));
            joined(first, weights(channel, place.next::<HALF>(channel.group)))
        };
        let mut codes = [
            words,
            _mm512_srli_epi16::<4>(words),
            _mm512_srli_epi16::<8>(words),
            _mm512_srli_epi16::<12>(words),
        ];
        for codes in &mut codes {
            if !WHOLE {
                // second | (codes & 15)
                *codes = _mm512_ternarylogic_epi32::<0xF8>(second, *codes, code);
            }
            *codes = _mm512_permutexvar_epi16(*codes, table);
        }
        for (nibble, [first, second]) in codes.as_chunks().0.iter().enumerate() {
            let place = index * WORDS + nibble * 2 * VECTOR;
            // SAFETY: rows are as long as was asserted.
            unsafe { add(&mut even, rows, place, *first) };
            // SAFETY: likewise.
            unsafe { add(&mut odd, rows, place + VECTOR, *second) };
        }
    }
    std::array::from_fn(|row| _mm512_reduce_add_ps(_mm512_add_ps(even[row], odd[row])))
}

/// What the sixteen codes of a group stand for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn weights(channel: Channel<'_>, group: usize) -> __m512 {
    // Beyond the last one activations are zeros.
    let group = group.min(channel.scales.len() - 1);
    _mm512_mul_ps(values(channel.nibbles, group), _mm512_set1_ps(channel.scales[group]))
}

/// How far an output channel went by. (To divide for each vector would take longer than its products.)
struct Place {
    group: usize,
    /// Of its weights.
    left: usize,
}

impl Place {
    /// The group of the next `COUNT` weights, of which groups are multiples.
    #[inline(always)]
    fn next<const COUNT: usize>(&mut self, group: usize) -> usize {
        let found = self.group;
        self.left -= COUNT;
        if self.left == 0 {
            (self.group, self.left) = (found + 1, group);
        }
        found
    }
}
