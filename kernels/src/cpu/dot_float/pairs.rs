//! Products of [`super`] with activations in bfloat16 by AVX-512 BF16: what the codes of a group stand for is rounded to bfloat16 once, as the
//! reference rounds weights (but for subnormal ones, which the product takes for 0); 32 codes are looked up by an instruction, and multiplied by another.

use std::arch::x86_64::*;

use half::bf16;

use super::super::isa::Isa;
use super::super::nibbles::{Order, WORDS, by_half_word};
use super::avx512::{values, words};
use super::{Block, Channel, MOST_ROWS};

/// Weights in half a vector: a table has room for those of two groups.
const HALF: usize = WORDS / 2;

/// Activations of a row in the order of [`by_half_word`]. It is made where the unit is.
#[derive(Debug)]
pub(crate) struct Row(Vec<bf16>);

/// Whether the unit is here, and a table holds what codes of groups of so many stand for.
pub(super) fn serves(group: usize, isa: Isa) -> bool {
    // AMX comes with it on all processors so far, but is not asked about it.
    isa >= Isa::Avx512Bf16 && group.is_multiple_of(HALF) && is_x86_feature_detected!("avx512bf16")
}

impl Row {
    /// Of these activations, for groups of so many; `None` where they are not served.
    pub(super) fn new(values: &[bf16], order: Order, group: usize, isa: Isa) -> Option<Self> {
        serves(group, isa).then(|| Self(by_half_word(values, order)))
    }

    /// Whole vectors of them.
    pub(super) fn values(&self) -> &[bf16] {
        &self.0
    }
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
        let words = words(bytes);
        // Of each 16 bits the permutation reads the lower five, of which a code has four. Where both halves of the table are alike,
        // it does not matter what the fifth is.
        let table = if WHOLE {
            let group = weights(channel, place.next::<WORDS>(channel.group));
            _mm512_cvtne2ps_pbh(group, group)
        } else {
            let first = weights(channel, place.next::<HALF>(channel.group));
            _mm512_cvtne2ps_pbh(weights(channel, place.next::<HALF>(channel.group)), first)
        };
        let table = bits(table);
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
            add(&mut even, rows, index * WORDS + 64 * nibble, *first);
            add(&mut odd, rows, index * WORDS + 64 * nibble + 32, *second);
        }
    }
    std::array::from_fn(|row| _mm512_reduce_add_ps(_mm512_add_ps(even[row], odd[row])))
}

/// To the sums of `rows` the products of 32 activations from `place` on, which all of them have.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn add<const M: usize>(sums: &mut [__m512; M], rows: [&[bf16]; M], place: usize, weights: __m512i) {
    for (sum, row) in sums.iter_mut().zip(rows) {
        // SAFETY: the caller has checked the rows' lengths.
        let x = unsafe { _mm512_loadu_si512(row.as_ptr().add(place).cast()) };
        *sum = _mm512_dpbf16_ps(*sum, numbers(x), numbers(weights));
    }
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

/// 32 numbers of 16 bits each.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn numbers(bits: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes, and any bits are numbers.
    unsafe { std::mem::transmute(bits) }
}

/// Their bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bits(numbers: __m512bh) -> __m512i {
    // SAFETY: both types are 64 bytes.
    unsafe { std::mem::transmute(numbers) }
}
