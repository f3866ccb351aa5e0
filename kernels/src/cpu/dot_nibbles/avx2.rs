//! Products of [`super`] by AVX2.

use std::arch::x86_64::*;

use super::super::nibbles::{BYTES, CHUNK};
use super::{Block, FloatChannel, IntegerChannel, Left};

/// Chunks whose sums of two products, each at most 2 · 15 · 128, fit into 16 bits together.
const CHUNKS: usize = 8;

/// See [`super::FewRows::multiply`], which has checked that the block has M rows.
#[target_feature(enable = "avx2")]
pub(super) fn products<const M: usize>(
    block: &Block,
    channel: IntegerChannel<'_>,
    group: usize,
    found: &mut [i32],
) {
    let mut totals = [_mm256_setzero_si256(); M];
    let mut left = Left { codes: &block.codes, bytes: channel.bytes };
    let scales = channel.scales.iter().zip(channel.zeros);
    for ((&scale, &zero), of_codes) in scales.zip(block.sums.as_chunks().0) {
        let sums: [_; M] = group_sums(left.next::<M>(group), zero, of_codes);
        let scale = _mm256_set1_epi32(i32::from(scale));
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = _mm256_add_epi32(*total, _mm256_mullo_epi32(sum, scale));
        }
    }
    for (found, total) in found.iter_mut().zip(totals) {
        *found = added_up(total);
    }
}

/// See [`super::FewRows::multiply_float`], which has checked that the block has M rows.
#[target_feature(enable = "avx2")]
pub(super) fn float_products<const M: usize>(
    block: &Block,
    channel: FloatChannel<'_>,
    group: usize,
    found: &mut [f32],
) {
    let mut totals = [0.0; M];
    let mut left = Left { codes: &block.codes, bytes: channel.bytes };
    for (&scale, of_codes) in channel.scales.iter().zip(block.sums.as_chunks().0) {
        let sums: [_; M] = group_sums(left.next::<M>(group), channel.zero, of_codes);
        for (total, sum) in totals.iter_mut().zip(sums) {
            // Added up while it is exact: so it is with many rows.
            *total += added_up(sum) as f32 * scale;
        }
    }
    found.copy_from_slice(&totals);
}

/// What adds up, modulo 2^32, to the sums of code · (nibble - zero) over a group, of whose codes `of_codes` are the sums.
#[inline]
#[target_feature(enable = "avx2")]
fn group_sums<const M: usize>((codes, bytes): (&[i8], &[u8]), zero: i8, of_codes: &[i32; M]) -> [__m256i; M] {
    let half = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); M];
    for (sum, of_codes) in sums.iter_mut().zip(of_codes) {
        *sum = _mm256_zextsi128_si256(_mm_cvtsi32_si128(-i32::from(zero) * of_codes));
    }
    for (codes, bytes) in codes.chunks(CHUNKS * CHUNK * M).zip(bytes.chunks(CHUNKS * BYTES)) {
        let mut pairs = [_mm256_setzero_si256(); M];
        for (codes, bytes) in codes.chunks_exact(CHUNK * M).zip(bytes.as_chunks::<BYTES>().0) {
            // SAFETY: sixteen bytes are read from as many.
            let both = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
            // Low halves, then high ones.
            let nibbles = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(both), both), half);
            for (pairs, codes) in pairs.iter_mut().zip(codes.as_chunks::<CHUNK>().0) {
                // SAFETY: 32 bytes are read from as many.
                let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
                *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(nibbles, codes));
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
