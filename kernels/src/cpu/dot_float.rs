//! Products of some rows in f32 with one output channel in few bits, straight from its bytes.
//!
//! Each group's codes are multiplied and summed, and the sum is scaled: no weight is ever rounded.

use super::float::Float;
use super::isa::Isa;
use super::nibbles::{BYTES, CHUNK, Order, pair};

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
    Table(&'a [f32; 16]),
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

/// The products of `rows` (at most [`ROWS`], [`super::nibbles::interleaved`], `[K]` each) with `channel`.
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
                Nibbles::Table(table) => table[usize::from(code)],
            };
            let chunks = x.chunks_exact(CHUNK).zip(bytes.chunks_exact(BYTES));
            let of_chunk = |(x, bytes): (&[f32], &[u8])| -> f32 {
                let (low, high) = x.split_at(BYTES);
                let halves = bytes.iter().zip(low.iter().zip(high));
                halves.map(|(byte, (low, high))| low * value(byte & 15) + high * value(byte >> 4)).sum()
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
            unpack::<T, V>(channel, order, weights);
        }
        // SAFETY: `isa` says that the processor has AVX2 and FMA.
        return unsafe { with_avx2::<T, V>(channel, order, weights) };
    }
    let _ = isa;
    unpack::<T, V>(channel, order, weights);
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
fn unpack<T: Float, V: Float>(channel: Channel<'_>, order: Order, weights: &mut [V]) {
    let groups = weights.chunks_exact_mut(channel.group).zip(channel.bytes.chunks_exact(channel.group / 2));
    for (index, (weights, bytes)) in groups.enumerate() {
        let scale = channel.scales[index];
        // Of sixteen codes, once for the group.
        let values: [V; 16] = std::array::from_fn(|code| {
            let value = match channel.nibbles {
                Nibbles::Integers { zeros } => {
                    code as f32 - zeros.map_or(8.0, |zeros| f32::from(zeros[index]))
                }
                Nibbles::Table(table) => table[code],
            };
            V::narrow(T::rounded(value * scale))
        });
        for (weights, &byte) in weights.chunks_exact_mut(2).zip(bytes) {
            let [first, second] = pair(byte, order);
            weights[0] = values[usize::from(first)];
            weights[1] = values[usize::from(second)];
        }
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

    use super::{BYTES, CHUNK, Channel, Nibbles};

    /// See [`super::four_bits`], which has checked the lengths.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn four_bits<const M: usize>(rows: [&[f32]; M], channel: Channel<'_>) -> [f32; M] {
        match channel.nibbles {
            Nibbles::Integers { zeros } => {
                let zero_of = |group: usize| zeros.map_or(8, |zeros| zeros[group]) as i8;
                sums(
                    rows,
                    channel,
                    |group| _mm_set1_epi8(zero_of(group)),
                    |codes, zero| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_sub_epi8(codes, zero))),
                )
            }
            Nibbles::Table(table) => {
                // SAFETY: the table has sixteen entries.
                let (low, high) =
                    unsafe { (_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8))) };
                sums(
                    rows,
                    channel,
                    |_| _mm_setzero_si128(),
                    |codes, _| {
                        let codes = _mm256_cvtepu8_epi32(codes);
                        // The lowest three bits choose within a half; the fourth, made a sign, chooses the half.
                        let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
                        _mm256_blendv_ps(
                            _mm256_permutevar8x32_ps(low, codes),
                            _mm256_permutevar8x32_ps(high, codes),
                            upper,
                        )
                    },
                )
            }
        }
    }

    /// `of_group` makes what all codes of a group need, `value` the values of the lowest eight codes.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn sums<const M: usize>(
        rows: [&[f32]; M],
        channel: Channel<'_>,
        of_group: impl Fn(usize) -> __m128i,
        value: impl Fn(__m128i, __m128i) -> __m256,
    ) -> [f32; M] {
        let mut totals = [_mm256_setzero_ps(); M];
        let half = _mm_set1_epi8(15);
        for (group, &scale) in channel.scales.iter().enumerate() {
            let needed = of_group(group);
            let mut sums = [[_mm256_setzero_ps(); 2]; M];
            let first = group * channel.group;
            for at in (first..first + channel.group).step_by(CHUNK) {
                // SAFETY: a chunk's bytes are within the channel.
                let bytes = unsafe { _mm_loadu_si128(channel.bytes.as_ptr().add(at / 2).cast()) };
                let low = _mm_and_si128(bytes, half);
                let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), half);
                let values = [
                    value(low, needed),
                    value(_mm_unpackhi_epi64(low, low), needed),
                    value(high, needed),
                    value(_mm_unpackhi_epi64(high, high), needed),
                ];
                for (row, sums) in rows.iter().zip(&mut sums) {
                    for (place, values) in values.into_iter().enumerate() {
                        // SAFETY: a chunk's activations are within the row.
                        let x = unsafe { _mm256_loadu_ps(row.as_ptr().add(at + place * BYTES / 2)) };
                        sums[place % 2] = _mm256_fmadd_ps(x, values, sums[place % 2]);
                    }
                }
            }
            let scale = _mm256_set1_ps(scale);
            for (total, [even, odd]) in totals.iter_mut().zip(sums) {
                *total = _mm256_fmadd_ps(_mm256_add_ps(even, odd), scale, *total);
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
