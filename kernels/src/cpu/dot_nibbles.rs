//! Exact integer products of rows of int8 codes with output channels of four-bit codes, group by group, straight from their
//! bytes.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "x86_64")]
use super::blocks::with_rows;
use super::isa::Isa;
use super::nibbles::{BYTES, CHUNK, Order, interleaved};

/// Rows that meet a byte when it is unpacked, at most.
const AT_ONCE: usize = 4;

/// What multiplies.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Unit {
    /// The best, of the instructions up to `isa`, for groups of so many codes.
    fn new(group: usize, isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx512Vnni && group.is_multiple_of(2 * vnni::VECTOR) {
            return Self::Vnni;
        } else if isa >= Isa::Avx2 {
            return Self::Avx2;
        }
        let _ = (group, isa);
        Self::Portable
    }

    /// Bytes that are unpacked at once.
    fn bytes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => vnni::VECTOR,
            _ => BYTES,
        }
    }
}

/// Up to [`AT_ONCE`] rows in the order in which channels meet them.
#[derive(Debug)]
struct Block {
    rows: usize,
    /// [K / width, rows, width], so many being unpacked at once.
    codes: Vec<i8>,
    /// Of the codes of each group: [K / group, rows].
    sums: Vec<i32>,
}

impl Block {
    fn new(codes: &[i8], (in_features, group): (usize, usize), unit: Unit) -> Self {
        let rows: Vec<Vec<i8>> = codes
            .chunks_exact(in_features)
            .map(|codes| interleaved(codes, Order::LowFirst, unit.bytes()))
            .collect();
        let rows = &rows;
        let in_turn = |width| {
            let starts = (0..in_features).step_by(width);
            starts.flat_map(move |at| rows.iter().map(move |row| &row[at..][..width]))
        };
        let mut unpacked = Vec::with_capacity(codes.len());
        in_turn(2 * unit.bytes()).for_each(|codes| unpacked.extend_from_slice(codes));
        let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum();
        Self { rows: rows.len(), codes: unpacked, sums: in_turn(group).map(sum).collect() }
    }
}

/// What is left of a block's codes and of a channel's bytes.
#[cfg(target_arch = "x86_64")]
struct Left<'a> {
    codes: &'a [i8],
    bytes: &'a [u8],
}

#[cfg(target_arch = "x86_64")]
impl<'a> Left<'a> {
    /// Those of the next group, of so many codes of each of M rows. (Iterators over groups would divide to know how many.)
    #[inline(always)]
    fn next<const M: usize>(&mut self, group: usize) -> (&'a [i8], &'a [u8]) {
        let (codes, bytes);
        (codes, self.codes) = self.codes.split_at(group * M);
        (bytes, self.bytes) = self.bytes.split_at(group / 2);
        (codes, bytes)
    }
}

/// Few rows in the order of a unit that the processor has.
#[derive(Debug)]
pub(crate) struct FewRows {
    blocks: Vec<Block>,
    count: usize,
    group: usize,
    unit: Unit,
}

/// An output channel whose weights are (nibble - zero) · scale, all integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntegerChannel<'a> {
    /// [K / 2], the first of two nibbles in the low half.
    pub(crate) bytes: &'a [u8],
    /// [K / group].
    pub(crate) scales: &'a [i8],
    /// [K / group].
    pub(crate) zeros: &'a [i8],
}

/// The same with scales in floating point and one zero point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloatChannel<'a> {
    /// [K / 2].
    pub(crate) bytes: &'a [u8],
    /// [K / group].
    pub(crate) scales: &'a [f32],
    pub(crate) zero: i8,
}

/// A call of the unit's function of this name, for so many rows as the block has.
macro_rules! by_unit {
    ($unit:expr, $block:expr, $function:ident($($argument:expr),*)) => {
        match $unit {
            // SAFETY: the unit was chosen where the processor has it.
            #[cfg(target_arch = "x86_64")]
            Unit::Avx2 => unsafe {
                use avx2::$function;
                with_rows!($block.rows, [1 2 3 4], $function($block, $($argument),*))
            },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Unit::Vnni => unsafe {
                use vnni::$function;
                with_rows!($block.rows, [1 2 3 4], $function($block, $($argument),*))
            },
            Unit::Portable => portable::$function($block, $($argument),*),
        }
    };
}

impl FewRows {
    /// Of codes i8 [M, K], for groups of so many, which are whole chunks.
    pub(crate) fn new(codes: &[i8], (in_features, group): (usize, usize), isa: Isa) -> Self {
        assert!(
            group > 0 && group.is_multiple_of(CHUNK) && in_features > 0 && in_features.is_multiple_of(group)
        );
        assert!(codes.len().is_multiple_of(in_features));
        let unit = Unit::new(group, isa);
        let block = |codes: &[i8]| Block::new(codes, (in_features, group), unit);
        let blocks = codes.chunks(AT_ONCE * in_features).map(block).collect();
        Self { blocks, count: codes.len() / in_features, group, unit }
    }

    /// To `found` [M] the product of each row with a channel, modulo 2^32.
    pub(crate) fn multiply(&self, channel: IntegerChannel<'_>, found: &mut [i32]) {
        assert!(found.len() == self.count && channel.zeros.len() == channel.scales.len());
        for (block, found) in self.blocks.iter().zip(found.chunks_mut(AT_ONCE)) {
            self.check(block, channel.bytes, channel.scales.len());
            by_unit!(self.unit, block, products(channel, self.group, found));
        }
    }

    /// To `found` [M] the product of each row with a channel; group by group the sum, which is exact, is scaled and added.
    pub(crate) fn multiply_float(&self, channel: FloatChannel<'_>, found: &mut [f32]) {
        assert!(found.len() == self.count);
        for (block, found) in self.blocks.iter().zip(found.chunks_mut(AT_ONCE)) {
            self.check(block, channel.bytes, channel.scales.len());
            by_unit!(self.unit, block, float_products(channel, self.group, found));
        }
    }

    fn check(&self, block: &Block, bytes: &[u8], groups: usize) {
        let codes = groups * self.group;
        assert!(2 * bytes.len() == codes && block.codes.len() == block.rows * codes);
        assert!(block.sums.len() == block.rows * groups);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::nibbles::pair;

    const K: usize = 1536;
    /// All kinds: less than a vector of AVX-512, no whole ones, whole ones, more than AVX2 sums in 16 bits.
    const GROUPS: [usize; 8] = [32, 64, 96, 128, 192, 256, 384, 512];

    /// Codes of rows, each another, which begin with the extreme ones.
    fn codes_of(rows: usize) -> Vec<i8> {
        let code = |row: usize, k: usize| match k {
            0..512 => -128,
            512..1024 => 127,
            _ => (k * 37 + row * 11) as u8 as i8,
        };
        (0..rows).flat_map(|row| (row..row + K).map(move |k| code(row, k))).collect()
    }

    /// Those of a channel's weights, the first of them at most.
    fn nibbles() -> Vec<u8> {
        (0..K).map(|k| if k < 1100 && k % 700 < 600 { 15 } else { (k * 91 / 7 % 16) as u8 }).collect()
    }

    fn packed(nibbles: &[u8]) -> Vec<u8> {
        let bytes: Vec<u8> = nibbles.as_chunks().0.iter().map(|[low, high]| low | high << 4).collect();
        assert!(bytes.iter().flat_map(|&byte| pair(byte, Order::LowFirst)).eq(nibbles.iter().copied()));
        bytes
    }

    /// The sums of code · (nibble - zero) over each group, `zeros` being those of the groups.
    fn sums(codes: &[i8], nibbles: &[u8], group: usize, zeros: &[i8]) -> Vec<i32> {
        let groups = codes.chunks(group).zip(nibbles.chunks(group)).zip(zeros);
        let product =
            |(code, nibble): (&i8, &u8), zero: i8| i32::from(*code) * (i32::from(*nibble) - i32::from(zero));
        groups
            .map(|((codes, nibbles), &zero)| codes.iter().zip(nibbles).map(|pair| product(pair, zero)).sum())
            .collect()
    }

    #[test]
    fn products_of_integers_are_exact_at_the_extremes() {
        let (nibbles, codes) = (nibbles(), codes_of(8));
        for (isa, group) in Isa::all_of_this_machine().flat_map(|isa| GROUPS.map(|group| (isa, group))) {
            let groups = 0..K / group;
            let scales: Vec<i8> =
                groups.clone().map(|index| if index == 0 { 119 } else { (index * 53 % 120) as i8 }).collect();
            let zeros: Vec<i8> = groups.map(|index| (index * 7 % 16) as i8).collect();
            let channel = IntegerChannel { bytes: &packed(&nibbles), scales: &scales, zeros: &zeros };
            for count in 1..=8 {
                let codes = &codes[..count * K];
                let mut found = vec![0; count];
                FewRows::new(codes, (K, group), isa).multiply(channel, &mut found);
                let product = |codes: &[i8]| -> i32 {
                    sums(codes, &nibbles, group, &zeros)
                        .iter()
                        .zip(&scales)
                        .map(|(sum, &scale)| sum * i32::from(scale))
                        .sum()
                };
                assert_eq!(
                    found,
                    codes.chunks(K).map(product).collect::<Vec<_>>(),
                    "{isa:?} {group} {count}"
                );
            }
        }
    }

    #[test]
    fn products_with_float_scales_have_the_same_bits_everywhere() {
        let (nibbles, mut codes) = (nibbles(), codes_of(8));
        codes[K..2 * K].fill(0);
        for (isa, group) in Isa::all_of_this_machine().flat_map(|isa| GROUPS.map(|group| (isa, group))) {
            let scales: Vec<f32> = (0..K / group).map(|index| 0.0137 * (index as f32 - 1.5)).collect();
            let channel = FloatChannel { bytes: &packed(&nibbles), scales: &scales, zero: 8 };
            for count in 1..=8 {
                let codes = &codes[..count * K];
                let mut found = vec![0.0; count];
                FewRows::new(codes, (K, group), isa).multiply_float(channel, &mut found);
                let product = |codes: &[i8]| {
                    let sums = sums(codes, &nibbles, group, &vec![8; K / group]);
                    let add = |total: f32, (sum, scale): (i32, &f32)| total + sum as f32 * scale;
                    sums.into_iter().zip(&scales).fold(0.0, add).to_bits()
                };
                let found: Vec<u32> = found.iter().map(|found| found.to_bits()).collect();
                assert_eq!(
                    found,
                    codes.chunks(K).map(product).collect::<Vec<_>>(),
                    "{isa:?} {group} {count}"
                );
            }
        }
    }
}
