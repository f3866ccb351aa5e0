//! Products of [`super`] by AVX-512 VNNI, whose first factor has no sign: a nibble.

use std::arch::x86_64::*;

use super::{Block, FloatChannel, IntegerChannel, Left};

/// Bytes of a vector, of which a group has whole ones.
pub(super) const VECTOR: usize = 64;

/// See [`super::FewRows::multiply`], which has checked that the block has M rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn products<const M: usize>(
    block: &Block,
    channel: IntegerChannel<'_>,
    group: usize,
    found: &mut [i32],
) {
    let mut totals = [_mm512_setzero_si512(); M];
    let mut left = Left { codes: &block.codes, bytes: channel.bytes };
    let scales = channel.scales.iter().zip(channel.zeros);
    for ((&scale, &zero), of_codes) in scales.zip(block.sums.as_chunks().0) {
        let sums: [_; M] = group_sums(left.next::<M>(group), zero, of_codes);
        let scale = _mm512_set1_epi32(i32::from(scale));
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = _mm512_add_epi32(*total, _mm512_mullo_epi32(sum, scale));
        }
    }
    for (found, total) in found.iter_mut().zip(totals) {
        *found = _mm512_reduce_add_epi32(total);
    }
}

/// See [`super::FewRows::multiply_float`], which has checked that the block has M rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
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
            *total += _mm512_reduce_add_epi32(sum) as f32 * scale;
        }
    }
    found.copy_from_slice(&totals);
}

/// What adds up, modulo 2^32, to the sums of code · (nibble - zero) over a group, of whose codes `of_codes` are the sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn group_sums<const M: usize>((codes, bytes): (&[i8], &[u8]), zero: i8, of_codes: &[i32; M]) -> [__m512i; M] {
    let half = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); M];
    for (sum, of_codes) in sums.iter_mut().zip(of_codes) {
        *sum = _mm512_zextsi128_si512(_mm_cvtsi32_si128(-i32::from(zero) * of_codes));
    }
    for (codes, bytes) in codes.chunks_exact(2 * VECTOR * M).zip(bytes.as_chunks::<VECTOR>().0) {
        // SAFETY: 64 bytes are read from as many.
        let both = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        let low = _mm512_and_si512(both, half);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(both), half);
        for (sum, [of_low, of_high]) in sums.iter_mut().zip(codes.as_chunks::<VECTOR>().0.as_chunks().0) {
            // SAFETY: likewise, twice.
            unsafe {
                *sum = _mm512_dpbusd_epi32(*sum, low, _mm512_loadu_si512(of_low.as_ptr().cast()));
                *sum = _mm512_dpbusd_epi32(*sum, high, _mm512_loadu_si512(of_high.as_ptr().cast()));
            }
        }
    }
    sums
}
