//! Sums of products of pairs of bfloat16 by AVX-512 BF16.

use std::arch::x86_64::*;

use half::bf16;

/// Activations in a vector.
pub(crate) const VECTOR: usize = 32;

/// To the sums of `rows` the products of a vector of activations from `place` on with `weights`, 32 numbers. Subnormal ones are taken for 0.
///
/// # Safety
///
/// All rows have these activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn add<const M: usize>(
    sums: &mut [__m512; M],
    rows: [&[bf16]; M],
    place: usize,
    weights: __m512i,
) {
    for (sum, row) in sums.iter_mut().zip(rows) {
        // SAFETY: the caller promises it.
        let x = unsafe { _mm512_loadu_si512(row.as_ptr().add(place).cast()) };
        *sum = _mm512_dpbf16_ps(*sum, numbers(x), numbers(weights));
    }
}

/// Both rounded to bfloat16, the lower sixteen first.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn joined(lower: __m512, upper: __m512) -> __m512i {
    // SAFETY: both types are 64 bytes.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(upper, lower)) }
}

/// 32 numbers of 16 bits each.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn numbers(bits: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes, and any bits are numbers.
    unsafe { std::mem::transmute(bits) }
}
