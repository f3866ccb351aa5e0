//! Of all instructions the same sums and weights.

use half::{bf16, f16};

use super::*;

/// A stream of codes.
fn packed(codes: &[u8], bits: u32) -> Vec<i32> {
    let mut words = vec![0_u32; (codes.len() * bits as usize).div_ceil(32)];
    for (place, &code) in codes.iter().enumerate() {
        for bit in (0..bits as usize).filter(|bit| code >> bit & 1 == 1) {
            words[(place * bits as usize + bit) / 32] |= 1 << ((place * bits as usize + bit) % 32);
        }
    }
    words.into_iter().map(u32::cast_signed).collect()
}

/// An output channel with this scale for a group, and what comes after it.
struct Channel {
    bits: u32,
    size: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<u8>,
    words: Vec<i32>,
}

impl Channel {
    fn new(bits: u32, size: usize, scales: Vec<f32>, after: &[i32]) -> Self {
        let mixed = |place: usize| ((place * place * 7 + place * 13 + place / 5) % (1 << bits)) as u8;
        let codes: Vec<u8> = (0..size * scales.len()).map(mixed).collect();
        let words = [packed(&codes, bits), after.to_vec()].concat();
        let zeros = (0..scales.len()).map(|group| mixed(group + 3)).collect();
        Self { bits, size, codes, scales, zeros, words }
    }

    fn stream(&self) -> (Codes<'_>, Groups<'_>) {
        let groups = Groups { size: self.size, scales: &self.scales, zeros: &self.zeros };
        (Codes { words: &self.words, bits: self.bits }, groups)
    }

    fn weights(&self) -> impl Iterator<Item = f32> {
        self.codes.iter().enumerate().map(|(place, &code)| {
            let group = place / self.size;
            (f32::from(code) - f32::from(self.zeros[group])) * self.scales[group]
        })
    }
}

const BITS: std::ops::RangeInclusive<u32> = 1..=8;
/// Of groups the size and the number.
const GROUPS: [(usize, usize); 9] =
    [(32, 5), (32, 1), (64, 2), (96, 3), (128, 3), (1056, 1), (8, 3), (40, 2), (13, 5)];

fn compare_products<T: Float>(channel: &Channel) {
    let terms = channel.codes.len();
    let values: Vec<T> =
        (0..MOST_ROWS * terms).map(|x| T::narrow(((x * x + x / 3) % 15) as f32 - 7.0)).collect();
    let rows: Vec<&[T]> = values.chunks(terms).collect();
    let product = |row: &&[T]| row.iter().zip(channel.weights()).map(|(x, weight)| x.wide() * weight).sum();
    let expected: Vec<f32> = rows.iter().map(product).collect();
    let (codes, groups) = channel.stream();
    for isa in Isa::all_of_this_machine() {
        let rows: Vec<Row> = rows.iter().map(|values| row(values, channel.size, isa)).collect();
        for some in 1..=rows_at_once(T::KIND, channel.size, isa) {
            let mut found = [f32::NAN; MOST_ROWS];
            products(&rows[..some], codes, groups, &mut Vec::new(), isa, &mut found);
            let (bits, size) = (channel.bits, channel.size);
            assert_eq!(found[..some], expected[..some], "{bits} bits in groups of {size}, {isa:?}");
        }
    }
}

#[test]
fn all_instructions_give_the_same_sums() {
    for bits in BITS {
        for (size, count) in GROUPS {
            for after in [&[][..], &[-1; 20]] {
                // Of whole numbers and scales that are powers of two sums are exact in any order.
                let scales = (0..count).map(|group| [0.5, 2.0, 0.25][group % 3]).collect();
                let channel = Channel::new(bits, size, scales, after);
                compare_products::<f32>(&channel);
                compare_products::<bf16>(&channel);
                compare_products::<f16>(&channel);
            }
        }
    }
}

fn compare_weights<T: Float, V: Float>(channel: &Channel) {
    let (codes, groups) = channel.stream();
    for isa in Isa::all_of_this_machine() {
        let mut found = vec![V::narrow(7.0); channel.codes.len()];
        unpack::<T, V>(codes, groups, &mut found, &mut Vec::new(), isa);
        for (found, weight) in found.iter().zip(channel.weights()) {
            let (found, expected) = (found.wide(), V::narrow(T::rounded(weight)).wide());
            let is_same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            let (bits, size) = (channel.bits, channel.size);
            assert!(is_same, "{found:e}, not {expected:e}: {bits} bits in groups of {size}, {isa:?}");
        }
    }
}

#[test]
fn all_instructions_give_the_same_weights() {
    for bits in BITS {
        for (size, count) in GROUPS {
            for scale in [0.0137, -0.0123, 3e-41, f32::INFINITY, f32::NAN] {
                let scales = (0..count).map(|group| scale * (1.0 + group as f32 / 7.0)).collect();
                let channel = Channel::new(bits, size, scales, &[-1]);
                compare_weights::<f32, f32>(&channel);
                compare_weights::<bf16, bf16>(&channel);
                compare_weights::<bf16, f32>(&channel);
                compare_weights::<f16, f32>(&channel);
            }
        }
    }
}

#[test]
#[should_panic(expected = "there are as many codes")]
fn a_stream_that_is_too_short_is_not_unpacked() {
    let channel = Channel::new(3, 64, vec![1.0], &[]);
    let (codes, groups) = channel.stream();
    let codes = Codes { words: &codes.words[..5], ..codes };
    unpack::<f32, f32>(codes, groups, &mut [0.0; 64], &mut Vec::new(), Isa::here());
}

#[test]
#[should_panic(expected = "there are as many codes")]
fn a_stream_that_is_too_short_is_not_multiplied() {
    let channel = Channel::new(3, 64, vec![1.0], &[]);
    let (codes, groups) = channel.stream();
    let codes = Codes { words: &codes.words[..5], ..codes };
    let rows = [row(&[1.0_f32; 64], 64, Isa::here())];
    products(&rows, codes, groups, &mut Vec::new(), Isa::here(), &mut [0.0; MOST_ROWS]);
}
