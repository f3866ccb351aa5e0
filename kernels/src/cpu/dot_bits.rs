//! Codes of 1 to 8 bits in a stream of bits ([`mod@crate::bitstream`]): read, multiplied with some rows in f32, made weights.

#[cfg(target_arch = "x86_64")]
mod avx2;
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

/// So many rows of a type are multiplied at once by codes in groups of so many.
pub(crate) fn rows_at_once(kind: Kind, group: usize, isa: Isa) -> usize {
    few::rows_at_once(kind, in_pairs(group, isa), isa)
}

/// The activations of a row for codes in groups of so many.
pub(crate) fn row<T: Float>(values: &[T], group: usize, isa: Isa) -> Row {
    Row::in_order(values, in_pairs(group, isa), isa)
}

/// Whether activations in bfloat16 meet codes in groups of so many as pairs, where the processor multiplies these.
fn in_pairs(group: usize, isa: Isa) -> bool {
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
    let terms = groups.terms();
    assert!(rows.iter().all(|row| row.len() >= terms));
    assert!(groups.zeros.len() == groups.scales.len());
    assert!(terms * codes.bits as usize <= 8 * size_of_val(codes.words), "there are as many codes");
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

#[inline(always)]
fn products_of(rows: &[Row], codes: &[u8], groups: Groups<'_>, found: &mut [f32; MOST_ROWS]) {
    // Lanes are added once, at the end: that takes as long as a hundred products.
    let mut totals = [[0.0; LANES]; ROWS];
    let each = codes.chunks_exact(groups.size).zip(groups.scales).zip(groups.zeros);
    for (index, ((codes, scale), &zero)) in each.enumerate() {
        let (zero, (whole, rest)) = (f32::from(zero), codes.as_chunks::<LANES>());
        for (total, row) in totals.iter_mut().zip(rows) {
            let (x, last) = row.floats()[index * groups.size..][..groups.size].as_chunks::<LANES>();
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

/// The weights of an output channel, `[K]`, rounded to the type `T` and held in the type `V`. Codes are read into `room`.
pub(crate) fn unpack<T: Float, V: Float>(
    codes: Codes<'_>,
    groups: Groups<'_>,
    weights: &mut [V],
    room: &mut Vec<u8>,
    isa: Isa,
) {
    #[cfg(target_arch = "x86_64")]
    if T::KIND == V::KIND && vbmi::serves(groups.size, isa) {
        if let Some(weights) = same_mut(weights) {
            // SAFETY: the processor has the instructions.
            return unsafe { vbmi::unpack_floats(codes, groups, weights) };
        }
        if let Some(weights) = same_mut(weights) {
            // SAFETY: likewise.
            return unsafe { vbmi::unpack_halves(codes, groups, weights) };
        }
    }
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

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// Numbers from 0 on below `end`, in no order.
    fn numbers(seed: usize, end: u32) -> impl Iterator<Item = u32> {
        let next = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        std::iter::successors(Some(seed as u64), next).skip(1).map(move |state| (state >> 33) as u32 % end)
    }

    fn packed(codes: &[u8], bits: u32) -> Vec<i32> {
        let mut words = vec![0_u32; (codes.len() * bits as usize).div_ceil(32)];
        for (bit, code) in codes.iter().enumerate().map(|(place, &code)| (place * bits as usize, code)) {
            let both = u64::from(code) << (bit % 32);
            words[bit / 32] |= both as u32;
            if both >> 32 != 0 {
                words[bit / 32 + 1] |= (both >> 32) as u32;
            }
        }
        words.into_iter().map(u32::cast_signed).collect()
    }

    /// Of whole numbers and scales that are powers of two sums are exact in any order.
    fn compare<T: Float>(bits: u32, size: usize, count: usize) {
        let terms = size * count;
        let codes: Vec<u8> = numbers(terms, 1 << bits).take(terms).map(|code| code as u8).collect();
        let zeros: Vec<u8> = numbers(count, 1 << bits).take(count).map(|zero| zero as u8).collect();
        let scales: Vec<f32> = (0..count).map(|group| [0.5, 2.0, 0.25][group % 3]).collect();
        let groups = Groups { size, scales: &scales, zeros: &zeros };
        let words = packed(&codes, bits);
        let of_group =
            |place: usize| (f32::from(codes[place]) - f32::from(zeros[place / size]), scales[place / size]);
        let values: Vec<T> = numbers(9, 15).take(8 * terms).map(|x| T::narrow(x as f32 - 7.0)).collect();
        let rows: Vec<&[T]> = values.chunks(terms).collect();
        let product = |row: &[T]| -> f32 {
            row.iter()
                .enumerate()
                .map(|(place, _)| of_group(place))
                .zip(row)
                .map(|((code, scale), x)| x.wide() * code * scale)
                .sum()
        };
        let expected: Vec<f32> = rows.iter().map(|row| product(row)).collect();
        for isa in Isa::all_of_this_machine() {
            let made: Vec<Row> = rows.iter().map(|values| row(values, size, isa)).collect();
            let codes = Codes { words: &words, bits };
            for some in 1..=rows_at_once(T::KIND, size, isa) {
                let mut found = [f32::NAN; MOST_ROWS];
                products(&made[..some], codes, groups, &mut Vec::new(), isa, &mut found);
                assert_eq!(found[..some], expected[..some], "{bits} bits in groups of {size}, {isa:?}");
            }
            let mut weights = vec![T::narrow(f32::NAN); terms];
            unpack::<T, T>(codes, groups, &mut weights, &mut Vec::new(), isa);
            for (place, weight) in weights.iter().enumerate() {
                let (code, scale) = of_group(place);
                assert_eq!(
                    weight.wide(),
                    T::rounded(code * scale),
                    "{bits} bits in groups of {size}, {isa:?}"
                );
            }
        }
    }

    #[test]
    fn all_instructions_give_the_same_sums_and_weights() {
        for bits in 1..=8 {
            for (size, count) in [(32, 5), (64, 2), (96, 3), (128, 3), (1056, 1), (8, 3), (40, 2), (13, 5)] {
                compare::<f32>(bits, size, count);
                compare::<bf16>(bits, size, count);
            }
        }
    }
}
