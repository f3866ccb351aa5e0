//! Products of [`super`] by AVX-512 VNNI, whose first factor has no sign: a nibble.

use std::arch::x86_64::*;

use super::{Block, Channel, FloatChannel};

/// Bytes of a vector, of which a group has whole ones.
pub(super) const BYTES: usize = 64;

/// See [`super::Rows::multiply`].
///
/// # Safety
///
/// The processor has the unit; the block has M rows of as many codes as the channel, in groups of so many.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn products<const M: usize>(
    block: &Block,
    channel: Channel<'_>,
    group: usize,
    found: &mut [i32],
) {
    let mut totals = [_mm512_setzero_si512(); M];
    let (mut codes, mut bytes) = (block.codes.as_ptr(), channel.bytes.as_ptr());
    let scales = channel.scales.iter().zip(channel.zeros);
    for ((&scale, &zero), sums) in scales.zip(block.sums.as_chunks::<M>().0) {
        // SAFETY: the caller promises that there are as many groups as scales.
        let sums = unsafe { group_sums(&mut codes, &mut bytes, group, zero, sums) };
        let scale = _mm512_set1_epi32(i32::from(scale));
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = _mm512_add_epi32(*total, _mm512_mullo_epi32(sum, scale));
        }
    }
    for (found, total) in found.iter_mut().zip(totals) {
        *found = _mm512_reduce_add_epi32(total);
    }
}

/// See [`super::Rows::multiply_float`].
///
/// # Safety
///
/// As for [`products`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
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
            *total += _mm512_reduce_add_epi32(sum) as f32 * scale;
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
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn group_sums<const M: usize>(
    codes: &mut *const i8,
    bytes: &mut *const u8,
    group: usize,
    zero: i8,
    of_codes: &[i32; M],
) -> [__m512i; M] {
    let half = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); M];
    for (sum, codes) in sums.iter_mut().zip(of_codes) {
        *sum = _mm512_zextsi128_si512(_mm_cvtsi32_si128(-i32::from(zero) * codes));
    }
    for _ in 0..group / (2 * BYTES) {
        // SAFETY: the caller promises it.
        unsafe {
            let nibbles = _mm512_loadu_si512(bytes.cast());
            let low = _mm512_and_si512(nibbles, half);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(nibbles), half);
            for (row, sum) in sums.iter_mut().enumerate() {
                let codes = codes.add(2 * BYTES * row);
                *sum = _mm512_dpbusd_epi32(*sum, low, _mm512_loadu_si512(codes.cast()));
                *sum = _mm512_dpbusd_epi32(*sum, high, _mm512_loadu_si512(codes.add(BYTES).cast()));
            }
            (*codes, *bytes) = (codes.add(2 * BYTES * M), bytes.add(BYTES));
        }
    }
    sums
}
