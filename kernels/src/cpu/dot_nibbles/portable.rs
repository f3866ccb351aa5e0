//! Products of [`super`] in plain Rust.

use super::super::nibbles::{BYTES, CHUNK};
use super::{Block, FloatChannel, IntegerChannel};

/// See [`super::FewRows::multiply`].
pub(super) fn products(block: &Block, channel: IntegerChannel<'_>, group: usize, found: &mut [i32]) {
    for (row, found) in found.iter_mut().enumerate() {
        let sums = (0..)
            .zip(channel.zeros)
            .map(|(index, &zero)| sum(block, (row, index), channel.bytes, group, zero));
        let scaled = sums.zip(channel.scales).map(|(sum, &scale)| i32::from(scale).wrapping_mul(sum));
        *found = scaled.fold(0, i32::wrapping_add);
    }
}

/// See [`super::FewRows::multiply_float`].
pub(super) fn float_products(block: &Block, channel: FloatChannel<'_>, group: usize, found: &mut [f32]) {
    for (row, found) in found.iter_mut().enumerate() {
        // From 0 on, as the others do: `Iterator::sum` begins with -0.
        *found = channel.scales.iter().enumerate().fold(0.0, |total, (index, scale)| {
            total + sum(block, (row, index), channel.bytes, group, channel.zero) as f32 * scale
        });
    }
}

/// The sum of code · (nibble - zero) over a group of a row.
fn sum(block: &Block, (row, index): (usize, usize), bytes: &[u8], group: usize, zero: i8) -> i32 {
    let codes = block.codes[index * group * block.rows..][..group * block.rows].chunks_exact(CHUNK);
    let of_row = codes.skip(row).step_by(block.rows);
    let bytes = bytes[index * group / 2..][..group / 2].chunks_exact(BYTES);
    let of_chunk = |(codes, bytes): (&[i8], &[u8])| -> i32 {
        let (low, high) = codes.split_at(BYTES);
        let of_byte = |((low, high), byte): ((&i8, &i8), &u8)| {
            i32::from(*low) * i32::from(byte & 15) + i32::from(*high) * i32::from(byte >> 4)
        };
        low.iter().zip(high).zip(bytes).map(of_byte).sum()
    };
    let sum: i32 = of_row.zip(bytes).map(of_chunk).sum();
    sum - i32::from(zero) * block.sums[index * block.rows + row]
}
