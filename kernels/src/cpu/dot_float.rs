//! Products of some rows in f32 with one output channel in few bits, straight from its bytes.
//!
//! Each group's codes are multiplied and summed, and the sum is scaled: no weight is ever rounded.

use super::float::Float;
use super::isa::Isa;
use super::nibbles::{BYTES, CHUNK, Order, RUN, pair};
#[cfg(target_arch = "x86_64")]
use super::view::{floats, floats_mut};

/// Rows that share the unpacking of an output channel.
pub(crate) const ROWS: usize = 4;

/// What four bits stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nibbles<'a> {
    /// Themselves, less the code of zero of each group.
    Integers {
        /// `[K / group]`; absent: 8.
        zeros: Option<&'a [u8]>,
    },
    /// Entries of a table.
    Table(&'a Table),
}

/// What sixteen codes stand for.
#[derive(Debug)]
pub(crate) struct Table {
    values: [f32; 16],
    /// The bytes of the values, the lowest of all first.
    planes: [[u8; 16]; 4],
}

impl Table {
    /// Of these values.
    pub(crate) const fn new(values: [f32; 16]) -> Self {
        let mut planes = [[0; 16]; 4];
        let mut code = 0;
        while code < 16 {
            let bytes = values[code].to_bits().to_le_bytes();
            let mut byte = 0;
            while byte < 4 {
                planes[byte][code] = bytes[byte];
                byte += 1;
            }
            code += 1;
        }
        Self { values, planes }
    }
}

/// One output channel of four-bit codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel<'a> {
    /// [K / 2].
    pub(crate) bytes: &'a [u8],
    /// Input channels that share a scale, whole chunks.
    pub(crate) group: usize,
    /// [K / group].
    pub(crate) scales: &'a [f32],
    /// What codes stand for.
    pub(crate) nibbles: Nibbles<'a>,
}

/// The products of `rows` (at most [`ROWS`], [`super::nibbles::interleaved`] in runs of [`RUN`], `[K]` each) with `channel`.
pub(crate) fn four_bits(rows: &[&[f32]], channel: Channel<'_>, isa: Isa) -> [f32; ROWS] {
    let terms = channel.bytes.len() * 2;
    assert!(channel.group.is_multiple_of(CHUNK) && channel.scales.len() * channel.group == terms);
    assert!(rows.len() <= ROWS && rows.iter().all(|row| row.len() == terms));
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        // SAFETY: `isa` says that the processor has AVX2 and FMA.
        return unsafe {
            match rows {
                [one] => widened(avx2::four_bits([one], channel)),
                [one, two] => widened(avx2::four_bits([one, two], channel)),
                [one, two, three] => widened(avx2::four_bits([one, two, three], channel)),
                [one, two, three, four] => avx2::four_bits([one, two, three, four], channel),
                _ => [0.0; ROWS],
            }
        };
    }
    let _ = isa;
    let mut found = [0.0; ROWS];
    for (sum, row) in found.iter_mut().zip(rows) {
        let groups = row.chunks_exact(channel.group).zip(channel.bytes.chunks_exact(channel.group / 2));
        for (index, (x, bytes)) in groups.enumerate() {
            let value = |code: u8| match channel.nibbles {
                Nibbles::Integers { zeros } => {
                    f32::from(code as i8 - zeros.map_or(8, |zeros| zeros[index]) as i8)
                }
                Nibbles::Table(table) => table.values[usize::from(code)],
            };
            let chunks = x.chunks_exact(CHUNK).zip(bytes.chunks_exact(BYTES));
            let of_chunk = |(x, bytes): (&[f32], &[u8])| -> f32 {
                let runs = x.chunks_exact(2 * RUN).zip(bytes.chunks_exact(RUN));
                let of_run = |(x, bytes): (&[f32], &[u8])| -> f32 {
                    let (low, high) = x.split_at(RUN);
                    let halves = bytes.iter().zip(low.iter().zip(high));
                    halves.map(|(byte, (low, high))| low * value(byte & 15) + high * value(byte >> 4)).sum()
                };
                runs.map(of_run).sum()
            };
            *sum += channel.scales[index] * chunks.map(of_chunk).sum::<f32>();
        }
    }
    found
}

/// The weights of `channel`, `[K]` in their own order, rounded to the type `T` and held in the type `V`.
pub(crate) fn unpack_four_bits<T: Float, V: Float>(
    channel: Channel<'_>,
    order: Order,
    weights: &mut [V],
    isa: Isa,
) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<T: Float, V: Float>(channel: Channel<'_>, order: Order, weights: &mut [V]) {
            unpack::<T, V>(channel, weights, |values, bytes, weights| {
                match (floats(values), floats_mut(weights)) {
                    (Some(values), Some(weights)) => avx2::look_up(values, bytes, order, weights),
                    _ => look_up(values, bytes, order, weights),
                }
            });
        }
        // SAFETY: `isa` says that the processor has AVX2 and FMA.
        return unsafe { with_avx2::<T, V>(channel, order, weights) };
    }
    let _ = isa;
    unpack::<T, V>(channel, weights, |values, bytes, weights| {
        look_up(values, bytes, order, weights);
    });
}

/// The weights of int8 codes with one scale, rounded to the type `T` and held in the type `V`.
pub(crate) fn unpack_eight_bits<T: Float, V: Float>(codes: &[i8], scale: f32, weights: &mut [V], isa: Isa) {
    #[inline(always)]
    fn plain<T: Float, V: Float>(codes: &[i8], scale: f32, weights: &mut [V]) {
        for (weight, &code) in weights.iter_mut().zip(codes) {
            *weight = V::narrow(T::rounded(f32::from(code) * scale));
        }
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<T: Float, V: Float>(codes: &[i8], scale: f32, weights: &mut [V]) {
            plain::<T, V>(codes, scale, weights);
        }
        // SAFETY: `isa` says that the processor has AVX2 and FMA.
        return unsafe { with_avx2::<T, V>(codes, scale, weights) };
    }
    let _ = isa;
    plain::<T, V>(codes, scale, weights);
}

#[inline(always)]
fn unpack<T: Float, V: Float>(
    channel: Channel<'_>,
    weights: &mut [V],
    look_up: impl Fn(&[V; 16], &[u8], &mut [V]),
) {
    let groups = weights.chunks_exact_mut(channel.group).zip(channel.bytes.chunks_exact(channel.group / 2));
    for (index, (weights, bytes)) in groups.enumerate() {
        let scale = channel.scales[index];
        // Of sixteen codes, once for the group.
        let values: [V; 16] = std::array::from_fn(|code| {
            let value = match channel.nibbles {
                Nibbles::Integers { zeros } => {
                    code as f32 - zeros.map_or(8.0, |zeros| f32::from(zeros[index]))
                }
                Nibbles::Table(table) => table.values[code],
            };
            V::narrow(T::rounded(value * scale))
        });
        look_up(&values, bytes, weights);
    }
}

/// Of each code in `bytes` its value.
#[inline(always)]
fn look_up<V: Copy>(values: &[V; 16], bytes: &[u8], order: Order, weights: &mut [V]) {
    for (weights, &byte) in weights.chunks_exact_mut(2).zip(bytes) {
        let [first, second] = pair(byte, order);
        weights[0] = values[usize::from(first)];
        weights[1] = values[usize::from(second)];
    }
}

/// The products of `rows` (at most [`ROWS`], `[K]` each) with int8 `codes` `[K]`, not scaled.
pub(crate) fn eight_bits(rows: &[&[f32]], codes: &[i8], isa: Isa) -> [f32; ROWS] {
    assert!(rows.len() <= ROWS && rows.iter().all(|row| row.len() == codes.len()));
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        // SAFETY: `isa` says that the processor has AVX2 and FMA.
        return unsafe {
            match rows {
                [one] => widened(avx2::eight_bits([one], codes)),
                [one, two] => widened(avx2::eight_bits([one, two], codes)),
                [one, two, three] => widened(avx2::eight_bits([one, two, three], codes)),
                [one, two, three, four] => avx2::eight_bits([one, two, three, four], codes),
                _ => [0.0; ROWS],
            }
        };
    }
    let _ = isa;
    let mut found = [0.0; ROWS];
    for (sum, row) in found.iter_mut().zip(rows) {
        *sum = row.iter().zip(codes).map(|(x, &code)| x * f32::from(code)).sum();
    }
    found
}

#[cfg(target_arch = "x86_64")]
fn widened<const M: usize>(sums: [f32; M]) -> [f32; ROWS] {
    std::array::from_fn(|row| sums.get(row).copied().unwrap_or(0.0))
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::super::nibbles::{CHUNK, Order, RUN};
    use super::{Channel, Nibbles};

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
    pub(super) fn four_bits<const M: usize>(rows: [&[f32]; M], channel: Channel<'_>) -> [f32; M] {
        match channel.nibbles {
            Nibbles::Integers { zeros } => {
                let planes = |group: usize| {
                    let zero = zeros.map_or(8, |zeros| zeros[group] & 15);
                    INTEGERS[usize::from(zero)].map(|plane| twice(&plane))
                };
                sums(rows, channel, planes, |codes, [third, fourth]: [__m256i; 2]| {
                    let (third, fourth) =
                        (_mm256_shuffle_epi8(third, codes), _mm256_shuffle_epi8(fourth, codes));
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

    /// See [`super::eight_bits`], which has checked the lengths.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn eight_bits<const M: usize>(rows: [&[f32]; M], codes: &[i8]) -> [f32; M] {
        const STEP: usize = 16;
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
        let mut found = sums.map(|[even, odd]| sum(_mm256_add_ps(even, odd)));
        for (found, row) in found.iter_mut().zip(rows) {
            for (x, &code) in row[whole..].iter().zip(&codes[whole..]) {
                *found += x * f32::from(code);
            }
        }
        found
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn sum(lanes: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}
