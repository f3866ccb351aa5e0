//! Products and look-ups of [`super`] with AVX2 and FMA.

use std::arch::x86_64::*;

use super::super::few::MOST_ROWS;
use super::super::nibbles::{CHUNK, Order, RUN};
use super::super::vectors::sum;
use super::{Block, Channel, Nibbles};

/// Bytes of the f32 values of sixteen codes, the lowest bytes first.
type Planes<const P: usize> = [[u8; 16]; P];

/// Of whole numbers, less each code of zero: the upper halves, the lower ones being 0.
static INTEGERS: [Planes<2>; 16] = {
    let mut planes = [[[0; 16]; 2]; 16];
    let mut zero = 0;
    while zero < 16 {
        let mut code = 0;
        while code < 16 {
            let bytes = (code as f32 - zero as f32).to_bits().to_le_bytes();
            planes[zero][0][code] = bytes[2];
            planes[zero][1][code] = bytes[3];
            code += 1;
        }
        zero += 1;
    }
    planes
};

/// See [`super::four_bits`], which has checked the lengths.
#[target_feature(enable = "avx2,fma")]
pub(super) fn four_bits<const M: usize>(rows: [&[f32]; M], block: Block<'_>, found: &mut [[f32; MOST_ROWS]]) {
    for (channel, found) in block.channels().zip(found) {
        found[..M].copy_from_slice(&of_channel(rows, channel));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn of_channel<const M: usize>(rows: [&[f32]; M], channel: Channel<'_>) -> [f32; M] {
    match channel.nibbles {
        Nibbles::Integers { zeros } => {
            let planes = |group: usize| {
                let zero = zeros.map_or(8, |zeros| zeros[group] & 15);
                INTEGERS[usize::from(zero)].map(|plane| twice(&plane))
            };
            sums(rows, channel, planes, |codes, [third, fourth]: [__m256i; 2]| {
                let (third, fourth) = (_mm256_shuffle_epi8(third, codes), _mm256_shuffle_epi8(fourth, codes));
                let nothing = _mm256_setzero_si256();
                widened(
                    [nothing, nothing],
                    [_mm256_unpacklo_epi8(third, fourth), _mm256_unpackhi_epi8(third, fourth)],
                )
            })
        }
        Nibbles::Table(table) => {
            let planes = table.planes.map(|plane| twice(&plane));
            sums(
                rows,
                channel,
                |_| planes,
                |codes, planes: [__m256i; 4]| {
                    let [first, second, third, fourth] =
                        planes.map(|plane| _mm256_shuffle_epi8(plane, codes));
                    widened(
                        [_mm256_unpacklo_epi8(first, second), _mm256_unpackhi_epi8(first, second)],
                        [_mm256_unpacklo_epi8(third, fourth), _mm256_unpackhi_epi8(third, fourth)],
                    )
                },
            )
        }
    }
}

/// See [`super::look_up`]: eight codes at a time, of a number of bytes that is a multiple of four.
#[target_feature(enable = "avx2,fma")]
pub(super) fn look_up(values: &[f32; 16], bytes: &[u8], order: Order, weights: &mut [f32]) {
    assert!(bytes.len().is_multiple_of(4) && weights.len() == 2 * bytes.len());
    // SAFETY: the table has twice eight values.
    let (lower, upper) =
        unsafe { (_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))) };
    let shifts = match order {
        Order::LowFirst => _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28),
        Order::HighFirst => _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24),
    };
    for (weights, bytes) in weights.chunks_exact_mut(8).zip(bytes.chunks_exact(4)) {
        let four = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let codes = _mm256_srlv_epi32(_mm256_set1_epi32(four), shifts);
        // The permutation reads the lower three bits; the fourth says which half of the table counts.
        let is_upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
        let found = _mm256_blendv_ps(
            _mm256_permutevar8x32_ps(lower, codes),
            _mm256_permutevar8x32_ps(upper, codes),
            is_upper,
        );
        // SAFETY: eight numbers are 32 bytes.
        unsafe { _mm256_storeu_ps(weights.as_mut_ptr(), found) };
    }
}

/// A table of sixteen bytes for both halves of a vector.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn twice(plane: &[u8; 16]) -> __m256i {
    // SAFETY: sixteen bytes are read from sixteen.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(plane.as_ptr().cast()) })
}

/// Values of 32 bits, [`RUN`] of a vector's lower half and as many of its upper one at a time, from their 16-bit halves.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn widened(lower: [__m256i; 2], upper: [__m256i; 2]) -> [__m256; 4] {
    [
        _mm256_unpacklo_epi16(lower[0], upper[0]),
        _mm256_unpackhi_epi16(lower[0], upper[0]),
        _mm256_unpacklo_epi16(lower[1], upper[1]),
        _mm256_unpackhi_epi16(lower[1], upper[1]),
    ]
    .map(|values| _mm256_castsi256_ps(values))
}

/// `of_group` makes what all codes of a group need, `values` the values of a chunk's codes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sums<const M: usize, N: Copy>(
    rows: [&[f32]; M],
    channel: Channel<'_>,
    of_group: impl Fn(usize) -> N,
    values: impl Fn(__m256i, N) -> [__m256; 4],
) -> [f32; M] {
    let mut totals = [_mm256_setzero_ps(); M];
    let half = _mm256_set1_epi8(15);
    for (group, &scale) in channel.scales.iter().enumerate() {
        let needed = of_group(group);
        // One row alone would wait for its last sum.
        let mut sums = [[_mm256_setzero_ps(); 4]; M];
        let mut at = group * channel.group;
        let end = at + channel.group;
        while at < end {
            // SAFETY: a chunk's bytes are within the channel.
            let bytes = unsafe { _mm_loadu_si128(channel.bytes.as_ptr().add(at / 2).cast()) };
            let codes = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes), half);
            let values = values(codes, needed);
            for (row, sums) in rows.iter().zip(&mut sums) {
                for (place, values) in values.into_iter().enumerate() {
                    // SAFETY: a chunk's activations are within the row.
                    let x = unsafe { _mm256_loadu_ps(row.as_ptr().add(at + place * 2 * RUN)) };
                    let sum = if M == 1 { place } else { place % 2 };
                    sums[sum] = _mm256_fmadd_ps(x, values, sums[sum]);
                }
            }
            at += CHUNK;
        }
        let scale = _mm256_set1_ps(scale);
        for (total, [a, b, c, d]) in totals.iter_mut().zip(sums) {
            let ab = _mm256_add_ps(a, b);
            let sum = if M == 1 { _mm256_add_ps(ab, _mm256_add_ps(c, d)) } else { ab };
            *total = _mm256_fmadd_ps(sum, scale, *total);
        }
    }
    totals.map(|total| sum(total))
}
