//! What several kernels do with vectors of AVX2 and AVX-512.

use std::arch::x86_64::*;

/// So many bytes before they are read, they are asked for: output channels lie one after the other, but the processor by itself asks
/// only for what is in a page.
const AHEAD: usize = 2048;

/// The sum of all lanes.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn sum(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// The first 64 bytes, filled up with zeros where there are fewer; later ones are asked for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn loaded(bytes: &[u8]) -> __m512i {
    _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast());
    match bytes.first_chunk::<64>() {
        // SAFETY: 64 bytes are read from 64.
        Some(bytes) => unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) },
        // SAFETY: what the mask leaves out is not read.
        None => unsafe { _mm512_maskz_loadu_epi8((1 << bytes.len()) - 1, bytes.as_ptr().cast()) },
    }
}

/// Sixteen numbers in bfloat16, as [`super::float::Float::narrow`] rounds them. (`vcvtneps2bf16` takes the smallest for 0.)
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn rounded(values: __m512) -> __m256i {
    let bits = _mm512_castps_si512(values);
    let upper = _mm512_srli_epi32::<16>(bits);
    let is_odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    let nearest = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), is_odd);
    let quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(nearest), is_nan, quiet))
}
