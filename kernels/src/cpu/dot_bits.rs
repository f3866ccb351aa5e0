//! Codes of 1 to 8 bits in a stream of bits ([`mod@crate::bitstream`]): multiplied with some rows, made weights.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vbmi;

use tch::Kind;

#[cfg(target_arch = "x86_64")]
use super::few::with_rows;
use super::few::{self, MOST_ROWS, ROWS, Row};
use super::float::Float;
use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::view::same_mut;

/// Codes that fill whole bytes, in any number of bits: as many bytes as these are.
const EIGHT: usize = 8;
/// Sums that are kept apart.
const LANES: usize = 16;

/// The codes of one output channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codes<'a> {
    /// The lowest bits first; whatever comes after them.
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

    /// Of each the first input channel, the code of zero and the scale.
    #[inline(always)]
    fn each(self) -> impl Iterator<Item = (usize, u8, f32)> {
        let both = self.zeros.iter().zip(self.scales);
        both.enumerate().map(move |(index, (&zero, &scale))| (index * self.size, zero, scale))
    }
}

impl Codes<'_> {
    /// The first `count` of them, of which there are as many, a byte each, in `room`.
    fn read(self, count: usize, room: &mut Vec<u8>, isa: Isa) -> &[u8] {
        let (bytes, bits) = (bytes_of(self.words), self.bits as usize);
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

/// So many rows of a type are multiplied at once by codes in groups of so many.
pub(crate) fn rows_at_once(kind: Kind, group: usize, isa: Isa) -> usize {
    few::rows_at_once(kind, meets_pairs(group, isa), isa)
}

/// The activations of a row for codes in groups of so many.
pub(crate) fn row<T: Float>(values: &[T], group: usize, isa: Isa) -> Row {
    Row::in_order(values, meets_pairs(group, isa), isa)
}

/// Whether activations in bfloat16 meet codes in groups of so many as pairs, where the processor multiplies these.
fn meets_pairs(group: usize, isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    return vbmi::serves(group, isa);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (group, isa);
        false
    }
}

/// The products of `rows` (at most [`rows_at_once`], `[K]` each, made by [`row`]) with the weights of an output channel, to `found`: codes
/// of a group are multiplied and summed, and sums are scaled. Where they are stored on the way it is in `room`.
pub(crate) fn products(
    rows: &[Row],
    codes: Codes<'_>,
    groups: Groups<'_>,
    room: &mut Vec<u8>,
    isa: Isa,
    found: &mut [f32; MOST_ROWS],
) {
    let terms = checked_terms(codes, groups);
    assert!(rows.iter().all(|row| row.len() >= terms));
    #[cfg(target_arch = "x86_64")]
    if let [Row::Pairs(_), ..] = rows {
        assert!(vbmi::serves(groups.size, isa));
        // SAFETY: the processor has VBMI, and it multiplies pairs where a row is in pairs.
        return unsafe {
            with_rows!(8: rows, Row::pairs, |rows| vbmi::paired_products(rows, codes, groups, found))
        };
    }
    #[cfg(target_arch = "x86_64")]
    if vbmi::serves(groups.size, isa) {
        // SAFETY: the processor has the instructions.
        return unsafe {
            with_rows!(4: rows, Row::floats, |rows| vbmi::products(rows, codes, groups, found))
        };
    }
    #[cfg(target_arch = "x86_64")]
    if avx2::serves(groups.size, isa) {
        // SAFETY: likewise.
        return unsafe {
            with_rows!(4: rows, Row::floats, |rows| avx2::products(rows, codes, groups, found))
        };
    }
    let codes = codes.read(terms, room, isa);
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512(rows: &[Row], codes: &[u8], groups: Groups<'_>, found: &mut [f32; MOST_ROWS]) {
            products_of(rows, codes, groups, found);
        }
        // SAFETY: `isa` says that the processor has the instructions.
        return unsafe { with_avx512(rows, codes, groups, found) };
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2(rows: &[Row], codes: &[u8], groups: Groups<'_>, found: &mut [f32; MOST_ROWS]) {
            products_of(rows, codes, groups, found);
        }
        // SAFETY: likewise.
        return unsafe { with_avx2(rows, codes, groups, found) };
    }
    let _ = isa;
    products_of(rows, codes, groups, found);
}

/// K, of which there are as many codes, and a scale and a code of zero for each group.
fn checked_terms(codes: Codes<'_>, groups: Groups<'_>) -> usize {
    assert!(groups.zeros.len() == groups.scales.len());
    assert!(groups.terms() * codes.bits as usize <= 8 * size_of_val(codes.words), "there are as many codes");
    groups.terms()
}

#[inline(always)]
fn products_of(rows: &[Row], codes: &[u8], groups: Groups<'_>, found: &mut [f32; MOST_ROWS]) {
    // Lanes are added once, at the end: that takes as long as a hundred products.
    let mut totals = [[0.0; LANES]; ROWS];
    for (start, zero, scale) in groups.each() {
        let (zero, (whole, rest)) = (f32::from(zero), codes[start..][..groups.size].as_chunks::<LANES>());
        for (total, row) in totals.iter_mut().zip(rows) {
            let (x, last) = row.floats()[start..][..groups.size].as_chunks::<LANES>();
            let mut sums = [0.0; LANES];
            for (x, codes) in x.iter().zip(whole) {
                for ((sum, x), &code) in sums.iter_mut().zip(x).zip(codes) {
                    *sum += x * (f32::from(code) - zero);
                }
            }
            for ((sum, x), &code) in sums.iter_mut().zip(last).zip(rest) {
                *sum += x * (f32::from(code) - zero);
            }
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += scale * sum;
            }
        }
    }
    for (found, lanes) in found.iter_mut().zip(&totals[..rows.len()]) {
        *found = lanes.iter().sum();
    }
}

/// The weights of an output channel, `[K]`, rounded to the type `T` and held in the type `V`. Where codes are stored on the way it is in `room`.
pub(crate) fn unpack<T: Float, V: Float>(
    codes: Codes<'_>,
    groups: Groups<'_>,
    weights: &mut [V],
    room: &mut Vec<u8>,
    isa: Isa,
) {
    let terms = checked_terms(codes, groups);
    assert!(weights.len() == terms);
    #[cfg(target_arch = "x86_64")]
    if T::KIND == V::KIND && vbmi::serves(groups.size, isa) {
        if let Some(weights) = same_mut(weights) {
            // SAFETY: the processor has the instructions.
            return unsafe { vbmi::unpack_f32(codes, groups, weights) };
        }
        if let Some(weights) = same_mut(weights) {
            // SAFETY: likewise.
            return unsafe { vbmi::unpack_bf16(codes, groups, weights) };
        }
    }
    let codes = codes.read(terms, room, isa);
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
    for (start, zero, scale) in groups.each() {
        let codes = &codes[start..][..groups.size];
        for (weight, &code) in weights[start..][..groups.size].iter_mut().zip(codes) {
            *weight = V::narrow(T::rounded((f32::from(code) - f32::from(zero)) * scale));
        }
    }
}
