//! Exact integer products of a row of int8 codes with an output channel of four-bit codes, group by group, straight from its
//! bytes.

use super::isa::Isa;
use super::nibbles::{BYTES, CHUNK};

/// The sums of code · nibble over each group, nibbles from 0 to 15. `row` is i8 `[K]`, [`super::nibbles::interleaved`] in
/// runs of [`BYTES`], `bytes` [K / 2]; a group is a whole number of chunks.
pub(crate) fn group_sums(row: &[i8], bytes: &[u8], group: usize, isa: Isa, sums: &mut Vec<i32>) {
    assert!(row.len() == 2 * bytes.len() && group.is_multiple_of(CHUNK) && row.len().is_multiple_of(group));
    sums.clear();
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        // SAFETY: `isa` says that the processor has AVX2.
        return unsafe { avx2(row, bytes, group, sums) };
    }
    let _ = isa;
    for (row, bytes) in row.chunks_exact(group).zip(bytes.chunks_exact(group / 2)) {
        let of_chunk = |(row, bytes): (&[i8], &[u8])| -> i32 {
            let (low, high) = row.split_at(BYTES);
            let halves = bytes.iter().zip(low.iter().zip(high));
            halves
                .map(|(byte, (low, high))| {
                    i32::from(*low) * i32::from(byte & 15) + i32::from(*high) * i32::from(byte >> 4)
                })
                .sum()
        };
        sums.push(row.chunks_exact(CHUNK).zip(bytes.chunks_exact(BYTES)).map(of_chunk).sum());
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(row: &[i8], bytes: &[u8], group: usize, sums: &mut Vec<i32>) {
    use std::arch::x86_64::*;

    /// Chunks whose sums of two products, each at most 2 · 15 · 128, fit into 16 bits together.
    const CHUNKS: usize = 8;

    let half = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    for first in (0..row.len()).step_by(group) {
        let mut total = _mm256_setzero_si256();
        for start in (first..first + group).step_by(CHUNKS * CHUNK) {
            let mut pairs = _mm256_setzero_si256();
            for at in (start..(start + CHUNKS * CHUNK).min(first + group)).step_by(CHUNK) {
                // SAFETY: a chunk's bytes and codes are within what the caller has measured.
                let (bytes, codes) = unsafe {
                    (
                        _mm_loadu_si128(bytes.as_ptr().add(at / 2).cast()),
                        _mm256_loadu_si256(row.as_ptr().add(at).cast()),
                    )
                };
                // Low halves, then high ones.
                let nibbles = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
                let products = _mm256_maddubs_epi16(_mm256_and_si256(nibbles, half), codes);
                pairs = _mm256_add_epi16(pairs, products);
            }
            total = _mm256_add_epi32(total, _mm256_madd_epi16(pairs, ones));
        }
        let four = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256::<1>(total));
        let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
        sums.push(_mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::nibbles::{Order, interleaved, pair};

    #[test]
    fn sums_are_exact_at_the_extremes() {
        for isa in Isa::all_of_this_machine() {
            for (group, fill) in [(32, 0xFF_u8), (96, 0x0F), (256, 0xFF), (512, 0x73)] {
                let codes: Vec<i8> =
                    (0..1536).map(|k| if k < 512 { -128 } else { (k * 37 % 256) as u8 as i8 }).collect();
                let bytes: Vec<u8> =
                    (0..768).map(|k| if k < 256 { fill } else { (k * 91 % 256) as u8 }).collect();
                let nibbles: Vec<u8> = bytes.iter().flat_map(|&byte| pair(byte, Order::LowFirst)).collect();
                let product = |(code, nibble): (&i8, &u8)| i32::from(*code) * i32::from(*nibble);
                let groups = codes.chunks(group).zip(nibbles.chunks(group));
                let expected: Vec<i32> =
                    groups.map(|(codes, nibbles)| codes.iter().zip(nibbles).map(product).sum()).collect();
                let row = interleaved(&codes, Order::LowFirst, BYTES);
                let mut sums = Vec::new();
                group_sums(&row, &bytes, group, isa, &mut sums);
                assert_eq!(sums, expected, "{isa:?} {group}");
            }
        }
    }
}
