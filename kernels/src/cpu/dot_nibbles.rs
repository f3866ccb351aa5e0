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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        if isa >= Isa::Avx512Vnni && group.is_multiple_of(2 * vnni::BYTES) {
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
            Self::Vnni => vnni::BYTES,
            _ => BYTES,
        }
    }
}

/// Up to [`AT_ONCE`] rows in the order in which channels meet them.
#[derive(Debug)]
struct Block {
    rows: usize,
    /// [K / run, rows, run], a run being what is unpacked at once.
    codes: Vec<i8>,
    /// Of the codes of each group: [K / group, rows].
    sums: Vec<i32>,
}

impl Block {
    fn new(codes: &[i8], (in_features, group): (usize, usize), unit: Unit) -> Self {
        let run = 2 * unit.bytes();
        let rows: Vec<Vec<i8>> = codes
            .chunks_exact(in_features)
            .map(|codes| interleaved(codes, Order::LowFirst, unit.bytes()))
            .collect();
        let rows = &rows;
        let in_turn = |width| {
            let starts = (0..in_features).step_by(width);
            starts.flat_map(move |at| rows.iter().map(move |row| &row[at..][..width]))
        };
        let mut in_runs = Vec::with_capacity(codes.len());
        in_turn(run).for_each(|codes| in_runs.extend_from_slice(codes));
        let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum();
        Self { rows: rows.len(), codes: in_runs, sums: in_turn(group).map(sum).collect() }
    }
}

/// Few rows in the order of a unit that the processor has.
#[derive(Debug)]
pub(crate) struct Rows {
    blocks: Vec<Block>,
    group: usize,
    unit: Unit,
}

/// An output channel whose weights are (nibble - zero) · scale, all integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel<'a> {
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
            // SAFETY: the unit was chosen where the processor has it, and the callers have checked the lengths.
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

impl Rows {
    /// Of codes i8 [M, K], for groups of so many, which are whole chunks.
    pub(crate) fn new(codes: &[i8], (in_features, group): (usize, usize), isa: Isa) -> Self {
        assert!(
            group > 0 && group.is_multiple_of(CHUNK) && in_features > 0 && in_features.is_multiple_of(group)
        );
        let unit = Unit::new(group, isa);
        let block = |codes: &[i8]| Block::new(codes, (in_features, group), unit);
        Self { blocks: codes.chunks(AT_ONCE * in_features).map(block).collect(), group, unit }
    }

    /// To `found` the product of each row with a channel, modulo 2^32.
    pub(crate) fn multiply(&self, channel: Channel<'_>, found: &mut [i32]) {
        assert!(channel.zeros.len() == channel.scales.len());
        for (block, found) in self.blocks.iter().zip(found.chunks_mut(AT_ONCE)) {
            self.check(block, channel.bytes, channel.scales.len());
            by_unit!(self.unit, block, products(channel, self.group, found));
        }
    }

    /// To `found` the product of each row with a channel; group by group the sum, which is exact, is scaled and added.
    pub(crate) fn multiply_float(&self, channel: FloatChannel<'_>, found: &mut [f32]) {
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

    /// Codes of rows and bytes of a channel, some of them at their extremes.
    fn operands(rows: usize, in_features: usize, fill: u8) -> (Vec<i8>, Vec<u8>) {
        let code = |k: usize| if k % in_features < 512 { -128 } else { (k * 37 % 256) as u8 as i8 };
        let byte = |k: usize| if k < 256 { fill } else { (k * 91 % 256) as u8 };
        ((0..rows * in_features).map(code).collect(), (0..in_features / 2).map(byte).collect())
    }

    #[test]
    fn sums_are_exact_at_the_extremes() {
        const K: usize = 1536;
        for isa in Isa::all_of_this_machine() {
            for (group, fill) in [(32, 0xFF_u8), (96, 0x0F), (128, 0xF0), (256, 0xFF), (512, 0x73)] {
                let (codes, bytes) = operands(6, K, fill);
                let groups = K / group;
                let scales: Vec<i8> = (0..groups)
                    .map(|group| if group == 0 { 119 } else { (group * 53 % 120) as i8 })
                    .collect();
                let zeros: Vec<i8> = (0..groups).map(|group| (group * 7 % 16) as i8).collect();
                let nibbles: Vec<u8> = bytes.iter().flat_map(|&byte| pair(byte, Order::LowFirst)).collect();
                let product = |codes: &[i8], weight: &dyn Fn(usize) -> i32| {
                    codes.iter().enumerate().map(|(k, &code)| i32::from(code) * weight(k)).sum::<i32>()
                };
                for count in 1..=6 {
                    let codes = &codes[..count * K];
                    let rows = Rows::new(codes, (K, group), isa);
                    let of_rows = |weight: &dyn Fn(usize) -> i32| -> Vec<i32> {
                        codes.chunks(K).map(|codes| product(codes, weight)).collect()
                    };
                    let nibble = |k: usize| i32::from(nibbles[k]);
                    let mut found = vec![0; count];
                    rows.multiply(Channel { bytes: &bytes, scales: &scales, zeros: &zeros }, &mut found);
                    let weight = |k| i32::from(scales[k / group]) * (nibble(k) - i32::from(zeros[k / group]));
                    assert_eq!(found, of_rows(&weight), "{isa:?} {group} {count}");

                    // Small whole numbers, whose sums are exact.
                    let scales: Vec<f32> = (0..groups).map(|group| (group % 3) as f32).collect();
                    let mut found = vec![0.0; count];
                    rows.multiply_float(FloatChannel { bytes: &bytes, scales: &scales, zero: 8 }, &mut found);
                    let weight = |k| scales[k / group] as i32 * (nibble(k) - 8);
                    assert_eq!(found, of_rows(&weight).iter().map(|&sum| sum as f32).collect::<Vec<_>>());
                }
            }
        }
    }
}
