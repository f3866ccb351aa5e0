//! Products of [`super`] with activations in bfloat16 by AVX-512 BF16, to which a code is an exact number, and unpacking to bfloat16.

use std::arch::x86_64::*;

use half::bf16;

use super::super::few::MOST_ROWS;
use super::super::few::pairs::{self, VECTOR};
use super::super::vectors::rounded;

/// Codes that become a vector of f32.
const HALF: usize = VECTOR / 2;

/// See [`super::products`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn products<const M: usize>(rows: [&[bf16]; M], codes: &[i8], found: &mut [f32; MOST_ROWS]) {
    assert!(rows.iter().all(|row| row.len() >= codes.len().next_multiple_of(VECTOR)));
    // Two of a row, so that one need not wait for the other.
    let (mut even, mut odd) = ([_mm512_setzero_ps(); M], [_mm512_setzero_ps(); M]);
    let (twice, rest) = codes.as_chunks::<{ 2 * VECTOR }>();
    for (index, codes) in twice.iter().enumerate() {
        let (first, second) = codes.split_at(VECTOR);
        // SAFETY: rows are as long as was asserted.
        unsafe { pairs::add(&mut even, rows, 2 * VECTOR * index, weights(first)) };
        // SAFETY: likewise.
        unsafe { pairs::add(&mut odd, rows, 2 * VECTOR * index + VECTOR, weights(second)) };
    }
    for (index, codes) in rest.chunks(VECTOR).enumerate() {
        let mut last = [0; VECTOR];
        last[..codes.len()].copy_from_slice(codes);
        // SAFETY: likewise.
        unsafe { pairs::add(&mut even, rows, 2 * VECTOR * twice.len() + VECTOR * index, weights(&last)) };
    }
    for ((found, even), odd) in found.iter_mut().zip(even).zip(odd) {
        *found = _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
    }
}

/// The first 32 codes in bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn weights(codes: &[i8]) -> __m512i {
    pairs::joined(floats(codes), floats(&codes[HALF..]))
}

/// See [`super::unpack`].
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn unpack(codes: &[i8], scale: f32, weights: &mut [bf16]) {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn store(codes: &[i8; HALF], scale: f32, weights: &mut [bf16; HALF]) {
        let weight = rounded(_mm512_mul_ps(floats(codes), _mm512_set1_ps(scale)));
        // SAFETY: sixteen numbers of two bytes.
        unsafe { _mm256_storeu_si256(weights.as_mut_ptr().cast(), weight) };
    }
    let (whole, rest) = codes.as_chunks::<HALF>();
    let (places, last) = weights.as_chunks_mut::<HALF>();
    assert!(places.len() == whole.len() && last.len() == rest.len());
    for (place, codes) in places.iter_mut().zip(whole) {
        store(codes, scale, place);
    }
    let (mut codes, mut place) = ([0; HALF], [bf16::ZERO; HALF]);
    codes[..rest.len()].copy_from_slice(rest);
    store(&codes, scale, &mut place);
    last.copy_from_slice(&place[..last.len()]);
}

/// The first sixteen codes as numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn floats(codes: &[i8]) -> __m512 {
    let codes = codes.first_chunk::<HALF>().expect("sixteen codes");
    // SAFETY: sixteen bytes are read from sixteen.
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) }))
}
