//! Products of [`super`] with AVX2 and BMI2, which spreads the bits of eight codes over as many bytes.

use std::arch::x86_64::*;

use super::super::few::MOST_ROWS;
use super::super::isa::Isa;
use super::super::vectors::sum;
use super::{Codes, EIGHT, Groups, bytes_of, mask, word_at};

/// Whether the processor has both, and groups are of whole eights.
pub(super) fn serves(group: usize, isa: Isa) -> bool {
    isa >= Isa::Avx2 && group.is_multiple_of(EIGHT) && is_x86_feature_detected!("bmi2")
}

/// See [`super::products`]. No code is stored.
#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn products<const M: usize>(
    rows: [&[f32]; M],
    codes: Codes<'_>,
    groups: Groups<'_>,
    found: &mut [f32; MOST_ROWS],
) {
    assert!(rows.iter().all(|row| row.len() >= groups.terms()));
    let (bytes, bits) = (bytes_of(codes.words), codes.bits as usize);
    let spread = u64::from_le_bytes([mask(bits) as u8; EIGHT]);
    let mut totals = [_mm256_setzero_ps(); M];
    for (start, zero, scale) in groups.each() {
        let zero = _mm256_set1_ps(f32::from(zero));
        let mut sums = [_mm256_setzero_ps(); M];
        for at in (start..start + groups.size).step_by(EIGHT) {
            let word = _pdep_u64(word_at(bytes, at / EIGHT * bits), spread);
            let codes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(word.cast_signed()));
            let values = _mm256_sub_ps(_mm256_cvtepi32_ps(codes), zero);
            for (sum, row) in sums.iter_mut().zip(rows) {
                // SAFETY: rows are as long as was asserted.
                let x = unsafe { _mm256_loadu_ps(row.as_ptr().add(at)) };
                *sum = _mm256_fmadd_ps(x, values, *sum);
            }
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = _mm256_fmadd_ps(sum, _mm256_set1_ps(scale), *total);
        }
    }
    for (found, total) in found.iter_mut().zip(totals) {
        *found = sum(total);
    }
}
