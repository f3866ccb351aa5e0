//! Codes of 1 to 8 bits in a stream of bits ([`mod@crate::bitstream`]): read, multiplied with some rows in f32, made weights.

use super::dot_float::ROWS;
use super::float::Float;
use super::isa::Isa;

/// Codes that fill whole bytes, in any number of bits: as many bytes as these are.
const EIGHT: usize = 8;
/// Sums that are kept apart.
const LANES: usize = 16;

/// The codes of one output channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codes<'a> {
    /// The lowest bits first.
    pub(crate) words: &'a [i32],
    /// Of a code.
    pub(crate) bits: u32,
}

/// What the codes of an output channel stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups<'a> {
    /// Input channels of each.
    pub(crate) size: usize,
    /// [K / size].
    pub(crate) scales: &'a [f32],
    /// Their codes of zero, [K / size].
    pub(crate) zeros: &'a [u8],
}

impl Groups<'_> {
    /// K.
    fn terms(self) -> usize {
        self.size * self.scales.len()
    }
}

impl Codes<'_> {
    /// The first `count` of them, a byte each, in `room`.
    fn read(self, count: usize, room: &mut Vec<u8>, isa: Isa) -> &[u8] {
        let (bytes, bits) = (bytes_of(self.words), self.bits as usize);
        assert!(count * bits <= 8 * bytes.len(), "there are as many codes");
        room.resize(count, 0);
        let codes = room.as_mut_slice();
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 && is_x86_feature_detected!("bmi2") {
            #[target_feature(enable = "bmi2")]
            fn deposited(bytes: &[u8], bits: usize, codes: &mut [u8]) {
                let mask = u64::from_le_bytes([mask(bits) as u8; EIGHT]);
                spread(bytes, bits, codes, |word| std::arch::x86_64::_pdep_u64(word, mask));
            }
            // SAFETY: the processor has the instruction.
            unsafe { deposited(bytes, bits, codes) };
            return room;
        }
        let _ = isa;
        spread(bytes, bits, codes, |word| {
            u64::from_le_bytes(std::array::from_fn(|code| (word >> (code * bits) & mask(bits)) as u8))
        });
        room
    }
}

/// The bytes of a stream, on processors whose lowest byte comes first, as all of libtorch's are.
fn bytes_of(words: &[i32]) -> &[u8] {
    // SAFETY: any words are bytes.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// The lowest `bits` bits.
fn mask(bits: usize) -> u64 {
    (1 << bits) - 1
}

/// Eight codes of `bytes` after the others, each `word` with its own in the lowest bits being made one with a code a byte.
#[inline(always)]
fn spread(bytes: &[u8], bits: usize, codes: &mut [u8], eight: impl Fn(u64) -> u64) {
    let (whole, rest) = codes.as_chunks_mut::<EIGHT>();
    let count = whole.len();
    for (index, codes) in whole.iter_mut().enumerate() {
        *codes = eight(word_at(bytes, index * bits)).to_le_bytes();
    }
    if !rest.is_empty() {
        rest.copy_from_slice(&eight(word_at(bytes, count * bits)).to_le_bytes()[..rest.len()]);
    }
}

/// Eight bytes from `place` on; zeros in place of those that are not there.
#[inline(always)]
fn word_at(bytes: &[u8], place: usize) -> u64 {
    let bytes = &bytes[place..];
    match bytes.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => {
            let mut last = [0; 8];
            last[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(last)
        }
    }
}

/// [`products`] straight from the stream, where AVX2 and BMI2 are there and groups are multiples of [`EIGHT`]: no code is stored.
#[cfg(target_arch = "x86_64")]
fn streamed(rows: &[Vec<f32>], codes: Codes<'_>, groups: Groups<'_>, isa: Isa) -> Option<[f32; ROWS]> {
    let can = isa >= Isa::Avx2 && is_x86_feature_detected!("bmi2") && groups.size.is_multiple_of(EIGHT);
    if !can {
        return None;
    }
    assert!(groups.zeros.len() == groups.scales.len());
    assert!(groups.terms() * codes.bits as usize <= 8 * size_of_val(codes.words), "there are as many codes");
    let widened = |sums: &[f32]| std::array::from_fn(|row| sums.get(row).copied().unwrap_or(0.0));
    // SAFETY: the processor has the instructions.
    Some(unsafe {
        match rows {
            [one] => widened(&avx2::products([one], codes, groups)),
            [one, two] => widened(&avx2::products([one, two], codes, groups)),
            [one, two, three] => widened(&avx2::products([one, two, three], codes, groups)),
            [one, two, three, four] => avx2::products([one, two, three, four], codes, groups),
            _ => [0.0; ROWS],
        }
    })
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Codes, EIGHT, Groups, bytes_of, mask, word_at};

    /// Sums of one row and group that do not wait for each other.
    const CHAINS: usize = 4;

    /// The products of `rows`, `[K]` each, with an output channel.
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn products<const M: usize>(
        rows: [&[f32]; M],
        codes: Codes<'_>,
        groups: Groups<'_>,
    ) -> [f32; M] {
        let (bytes, bits) = (bytes_of(codes.words), codes.bits as usize);
        let spread = u64::from_le_bytes([mask(bits) as u8; EIGHT]);
        let rows = rows.map(|row| row.as_chunks::<EIGHT>().0);
        let mut found = [_mm256_setzero_ps(); M];
        let mut first = 0;
        for (&scale, &zero) in groups.scales.iter().zip(groups.zeros) {
            let zero = _mm256_set1_ps(f32::from(zero));
            let mut sums = [[_mm256_setzero_ps(); CHAINS]; M];
            for index in 0..groups.size / EIGHT {
                let place = first + index;
                let word = _pdep_u64(word_at(bytes, place * bits), spread);
                let codes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(word.cast_signed()));
                let values = _mm256_sub_ps(_mm256_cvtepi32_ps(codes), zero);
                for (sums, row) in sums.iter_mut().zip(rows) {
                    // SAFETY: eight numbers.
                    let x = unsafe { _mm256_loadu_ps(row[place].as_ptr()) };
                    sums[index % CHAINS] = _mm256_fmadd_ps(x, values, sums[index % CHAINS]);
                }
            }
            for (found, [a, b, c, d]) in found.iter_mut().zip(sums) {
                let sum = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
                *found = _mm256_fmadd_ps(sum, _mm256_set1_ps(scale), *found);
            }
            first += groups.size / EIGHT;
        }
        found.map(|lanes| {
            let mut numbers = [0.0_f32; EIGHT];
            // SAFETY: eight numbers.
            unsafe { _mm256_storeu_ps(numbers.as_mut_ptr(), lanes) };
            numbers.iter().sum()
        })
    }
}

/// The products of `rows` (at most [`ROWS`], `[K]` each) with the weights of an output channel: codes of a group are multiplied and summed, and
/// sums are scaled. Where they are stored on the way it is in `room`.
pub(crate) fn products(
    rows: &[Vec<f32>],
    codes: Codes<'_>,
    groups: Groups<'_>,
    room: &mut Vec<u8>,
    isa: Isa,
) -> [f32; ROWS] {
    let terms = groups.terms();
    assert!(rows.len() <= ROWS && rows.iter().all(|row| row.len() == terms));
    #[cfg(target_arch = "x86_64")]
    if let Some(products) = streamed(rows, codes, groups, isa) {
        return products;
    }
    let codes = codes.read(terms, room, isa);
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512(rows: &[Vec<f32>], codes: &[u8], groups: Groups<'_>) -> [f32; ROWS] {
            products_of(rows, codes, groups)
        }
        // SAFETY: `isa` says that the processor has the instructions.
        return unsafe { with_avx512(rows, codes, groups) };
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2(rows: &[Vec<f32>], codes: &[u8], groups: Groups<'_>) -> [f32; ROWS] {
            products_of(rows, codes, groups)
        }
        // SAFETY: likewise.
        return unsafe { with_avx2(rows, codes, groups) };
    }
    let _ = isa;
    products_of(rows, codes, groups)
}

#[inline(always)]
fn products_of(rows: &[Vec<f32>], codes: &[u8], groups: Groups<'_>) -> [f32; ROWS] {
    // Lanes are added once, at the end: that takes as long as a hundred products.
    let mut found = [[0.0; LANES]; ROWS];
    let each = codes.chunks_exact(groups.size).zip(groups.scales).zip(groups.zeros);
    for (index, ((codes, scale), &zero)) in each.enumerate() {
        let (zero, (whole, rest)) = (f32::from(zero), codes.as_chunks::<LANES>());
        for (found, row) in found.iter_mut().zip(rows) {
            let (x, last) = row[index * groups.size..][..groups.size].as_chunks::<LANES>();
            let mut sums = [0.0; LANES];
            for (x, codes) in x.iter().zip(whole) {
                for ((sum, x), &code) in sums.iter_mut().zip(x).zip(codes) {
                    *sum += x * (f32::from(code) - zero);
                }
            }
            for ((sum, x), &code) in sums.iter_mut().zip(last).zip(rest) {
                *sum += x * (f32::from(code) - zero);
            }
            for (found, sum) in found.iter_mut().zip(sums) {
                *found += scale * sum;
            }
        }
    }
    found.map(|lanes| lanes.iter().sum())
}

/// The weights of an output channel, `[K]`, rounded to the type `T` and held in the type `V`. Codes are read into `room`.
pub(crate) fn unpack<T: Float, V: Float>(
    codes: Codes<'_>,
    groups: Groups<'_>,
    weights: &mut [V],
    room: &mut Vec<u8>,
    isa: Isa,
) {
    let codes = codes.read(groups.terms(), room, isa);
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512<T: Float, V: Float>(codes: &[u8], groups: Groups<'_>, weights: &mut [V]) {
            unpack_of::<T, V>(codes, groups, weights);
        }
        // SAFETY: `isa` says that the processor has the instructions.
        return unsafe { with_avx512::<T, V>(codes, groups, weights) };
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<T: Float, V: Float>(codes: &[u8], groups: Groups<'_>, weights: &mut [V]) {
            unpack_of::<T, V>(codes, groups, weights);
        }
        // SAFETY: likewise.
        return unsafe { with_avx2::<T, V>(codes, groups, weights) };
    }
    let _ = isa;
    unpack_of::<T, V>(codes, groups, weights);
}

#[inline(always)]
fn unpack_of<T: Float, V: Float>(codes: &[u8], groups: Groups<'_>, weights: &mut [V]) {
    let each = codes.chunks_exact(groups.size).zip(groups.scales).zip(groups.zeros);
    for (weights, ((codes, scale), &zero)) in weights.chunks_exact_mut(groups.size).zip(each) {
        for (weight, &code) in weights.iter_mut().zip(codes) {
            *weight = V::narrow(T::rounded((f32::from(code) - f32::from(zero)) * scale));
        }
    }
}
