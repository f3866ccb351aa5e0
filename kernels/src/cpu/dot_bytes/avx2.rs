//! Products of [`super`] with AVX2 and FMA.

use std::arch::x86_64::*;

use super::super::few::MOST_ROWS;
use super::super::vectors::sum;

/// See [`super::products`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn products<const M: usize>(rows: [&[f32]; M], codes: &[i8], found: &mut [f32; MOST_ROWS]) {
    const STEP: usize = 16;
    assert!(rows.iter().all(|row| row.len() >= codes.len()));
    let whole = codes.len() / STEP * STEP;
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    for at in (0..whole).step_by(STEP) {
        // SAFETY: `at + 16` is at most the number of codes, and of each row's activations.
        let bytes = unsafe { _mm_loadu_si128(codes.as_ptr().add(at).cast()) };
        let values = [bytes, _mm_unpackhi_epi64(bytes, bytes)]
            .map(|bytes| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
        for (row, sums) in rows.iter().zip(&mut sums) {
            for (place, values) in values.into_iter().enumerate() {
                // SAFETY: as above.
                let x = unsafe { _mm256_loadu_ps(row.as_ptr().add(at + 8 * place)) };
                sums[place] = _mm256_fmadd_ps(x, values, sums[place]);
            }
        }
    }
    for ((found, row), [even, odd]) in found.iter_mut().zip(rows).zip(sums) {
        *found = sum(_mm256_add_ps(even, odd));
        for (x, &code) in row[whole..].iter().zip(&codes[whole..]) {
            *found += x * f32::from(code);
        }
    }
}
