//! Products of [`super`] by AVX2.

use std::arch::x86_64::*;

use super::super::nibbles::{BYTES, CHUNK};
use super::{Block, Channel, FloatChannel};

/// Chunks whose sums of two products, each at most 2 · 15 · 128, fit into 16 bits together.
const CHUNKS: usize = 8;

/// See [`super::Rows::multiply`].
///
/// # Safety
///
/// The processor has AVX2; the block has M rows of as many codes as the channel, in groups of so many.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn products<const M: usize>(
    block: &Block,
    channel: Channel<'_>,
    group: usize,
    found: &mut [i32],
) {
    let mut totals = [_mm256_setzero_si256(); M];
    let (mut codes, mut bytes) = (block.codes.as_ptr(), channel.bytes.as_ptr());
    let scales = channel.scales.iter().zip(channel.zeros);
    for ((&scale, &zero), sums) in scales.zip(block.sums.as_chunks::<M>().0) {
        // SAFETY: the caller promises that there are as many groups as scales.
        let sums = unsafe { group_sums(&mut codes, &mut bytes, group, zero, sums) };
        let scale = _mm256_set1_epi32(i32::from(scale));
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = _mm256_add_epi32(*total, _mm256_mullo_epi32(sum, scale));
        }
    }
    for (found, total) in found.iter_mut().zip(totals) {
        *found = added_up(total);
    }
}

/// See [`super::Rows::multiply_float`].
///
/// # Safety
///
/// As for [`products`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn float_products<const M: usize>(
    block: &Block,
    channel: FloatChannel<'_>,
    group: usize,
    found: &mut [f32],
) {
    let mut totals = [0.0; M];
    let (mut codes, mut bytes) = (block.codes.as_ptr(), channel.bytes.as_ptr());
    for (&scale, sums) in channel.scales.iter().zip(block.sums.as_chunks::<M>().0) {
        // SAFETY: the caller promises that there are as many groups as scales.
        let sums = unsafe { group_sums(&mut codes, &mut bytes, group, channel.zero, sums) };
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total += added_up(sum) as f32 * scale;
        }
    }
    found.copy_from_slice(&totals);
}

/// What adds up to the sums of code · (nibble - zero) over the next group, of whose codes `of_codes` are the sums.
///
/// # Safety
///
/// So many codes of each row, and half as many bytes, can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn group_sums<const M: usize>(
    codes: &mut *const i8,
    bytes: &mut *const u8,
    group: usize,
    zero: i8,
    of_codes: &[i32; M],
) -> [__m256i; M] {
    let half = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); M];
    for (sum, codes) in sums.iter_mut().zip(of_codes) {
        *sum = _mm256_zextsi128_si256(_mm_cvtsi32_si128(-i32::from(zero) * codes));
    }
    let mut left = group / CHUNK;
    while left > 0 {
        let some = left.min(CHUNKS);
        left -= some;
        let mut pairs = [_mm256_setzero_si256(); M];
        for _ in 0..some {
            // SAFETY: the caller promises it.
            unsafe {
                let both = _mm_loadu_si128(bytes.cast());
                // Low halves, then high ones.
                let nibbles = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(both), both), half);
                for (row, pairs) in pairs.iter_mut().enumerate() {
                    let codes = _mm256_loadu_si256(codes.add(CHUNK * row).cast());
                    *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(nibbles, codes));
                }
                (*codes, *bytes) = (codes.add(CHUNK * M), bytes.add(BYTES));
            }
        }
        for (sum, pairs) in sums.iter_mut().zip(pairs) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2")]
fn added_up(sums: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
}
