//! Products of many rows with an int8 weight by outer products, for processors that multiply int8 in fours: AVX-512 VNNI.
//!
//! A tile of [`ROWS`] rows and [`CHANNELS`] output channels is summed in registers. For each four input channels, one vector holds
//! the codes of sixteen output channels, and one the four codes of a row, sixteen times: `vpdpbusd` multiplies and adds them. Its
//! first factor has no sign: the weight's codes are [`SHIFT`] above themselves, and sums begin with what that adds taken off.

use std::arch::x86_64::*;
use std::ops::Range;

use super::blocks::{Blocks, with_rows};
use super::dot::Weight;
use super::fours::{self, CHANNELS, Line, Strip, TERMS, TILE, add_scaled};
use super::gemm::{GroupedSink, Sink};
use super::shared::Shared;
use super::strips::{Groups, InBlocks, each_tile};
use super::threads::in_parts;

/// Rows of a block at most: with two vectors of output channels, their sums fill 24 of 32 registers.
const ROWS: usize = 12;
/// What is added to a weight's codes.
const SHIFT: i32 = 128;
/// Codes that one thread sums without waking another.
const ALONE: usize = 1 << 18;
/// Fours of input channels in a part of a strip.
const FOURS: usize = TERMS / 4;

/// Codes of many rows in fours, each row filled up with zeros to whole [`TERMS`].
#[derive(Debug)]
pub(crate) struct Rows {
    blocks: Blocks<i32, ROWS>,
    /// The sums of each [`TERMS`] codes of a row: i32 [M, ⌈K / TERMS⌉].
    sums: Vec<i32>,
    /// Parts of a row.
    parts: usize,
}

impl Rows {
    /// From codes i8 [M, K].
    pub(crate) fn new(codes: &[i8], in_features: usize) -> Self {
        let (rows, parts) = (codes.len() / in_features.max(1), in_features.div_ceil(TERMS));
        let row = |row: usize| &codes[row * in_features..][..in_features];
        let blocks = Blocks::new(rows, parts * FOURS, |index| {
            let (fours, rest) = row(index).as_chunks::<4>();
            fours.iter().copied().map(four).chain((!rest.is_empty()).then(|| four(filled(rest))))
        });
        let mut sums = vec![0; rows * parts];
        let shared = Shared::new(&mut sums);
        in_parts(rows, 1, ALONE / in_features.max(1), |range| {
            for index in range {
                // SAFETY: each row is given to one thread.
                let sums = unsafe { shared.part(index * parts, parts) };
                for (sum, part) in sums.iter_mut().zip(row(index).chunks(TERMS)) {
                    *sum = part.iter().map(|&code| i32::from(code)).sum();
                }
            }
        });
        Self { blocks, sums, parts }
    }

    /// The sums of the codes of `rows` rows from `first` on, over some parts, [`SHIFT`] times and negative.
    fn begin(&self, first: usize, rows: usize, parts: Range<usize>) -> [i32; ROWS] {
        let mut begin = [0; ROWS];
        for (begin, row) in begin.iter_mut().zip(first..first + rows) {
            let sums = &self.sums[row * self.parts..][parts.clone()];
            *begin = -SHIFT * sums.iter().sum::<i32>();
        }
        begin
    }
}

/// Four codes as they lie in memory.
fn four(codes: [i8; 4]) -> i32 {
    i32::from_le_bytes(codes.map(|code| code as u8))
}

/// At most four codes, with zeros after them.
fn filled(codes: &[i8]) -> [i8; 4] {
    std::array::from_fn(|place| codes.get(place).copied().unwrap_or_default())
}

/// Sums of a block's rows and a strip's channels.
type Sums = [[i32; CHANNELS]; ROWS];

impl InBlocks for Rows {
    const CHANNELS: usize = CHANNELS;

    type Strip = Strip;

    fn strip_bytes(in_features: usize) -> usize {
        fours::strip_bytes(in_features)
    }

    unsafe fn fill(strip: &mut Strip, weight: Weight<'_>, channels: Range<usize>) {
        let codes: Vec<&[i8]> = channels.map(|channel| weight.channel(channel)).collect();
        // SAFETY: where there is VNNI, there is AVX-512: see `Isa`.
        unsafe { strip.fill(&codes, weight.in_features(), i8::MIN) };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn multiply(&self, strips: &[Strip], first: usize, out_features: usize, sink: &impl Sink) {
        let blocks = self
            .blocks
            .iter()
            .map(|(row, rows, fours)| (row, rows, (rows, fours, self.begin(row, rows, 0..self.parts))));
        let sums_of =
            |&(rows, fours, begin): &(usize, &[i32], _), (_, strip): (_, &Strip), sums: &mut Sums| {
                tile_sums((rows, fours), strip.all(), &begin, sums);
            };
        each_tile(blocks, strips, (first, out_features), sums_of, |row, first, sums| {
            sink.take(row, first, sums)
        });
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn multiply_groups(
        &self,
        strips: &[Strip],
        first: usize,
        (out_features, groups): (usize, Groups),
        sink: &impl GroupedSink,
    ) {
        assert!(fours::fits(groups.group), "groups are whole parts of a strip");
        let width = groups.group / TERMS;
        let parts = || (0..self.parts).step_by(width).map(|start| start..start + width);
        let scales = groups.scales::<CHANNELS>(strips.len(), (first, out_features), sink);
        let blocks = self.blocks.iter().map(|(row, rows, fours)| {
            let begins: Vec<_> = parts().map(|part| self.begin(row, rows, part)).collect();
            (row, rows, (rows, fours, begins))
        });
        let mut sums = [[0; CHANNELS]; ROWS];
        let scaled_sums = |(rows, fours, begins): &(usize, &[i32], Vec<_>),
                           (index, strip): (usize, &Strip),
                           scaled: &mut [[f32; CHANNELS]; ROWS]| {
            *scaled = Default::default();
            for ((part, begin), scales) in parts().zip(begins).zip(&scales[index]) {
                let some = &fours[part.start * FOURS * rows..part.end * FOURS * rows];
                tile_sums((*rows, some), strip.lines(part), begin, &mut sums);
                for (scaled, sums) in scaled.iter_mut().zip(&sums).take(*rows) {
                    add_scaled(scaled, sums, scales);
                }
            }
        };
        each_tile(blocks, strips, (first, out_features), scaled_sums, |row, first, sums| {
            sink.take(row, first, sums)
        });
    }
}

/// The sums of a block of so many rows and of the channels of `lines`, from what they begin with.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile_sums((rows, fours): (usize, &[i32]), lines: &[Line], begin: &[i32; ROWS], sums: &mut Sums) {
    with_rows!(rows, [1 2 3 4 5 6 7 8 9 10 11 12], sums_of(fours, lines, begin, sums));
}

/// `x` [fours, R], `tiles` as a [`Strip`] has them: of each [`TERMS`] input channels those of sixteen output channels, then those of
/// sixteen others.
#[target_feature(enable = "avx512f,avx512vnni")]
fn sums_of<const R: usize>(x: &[i32], tiles: &[Line], begin: &[i32; ROWS], found: &mut Sums) {
    assert_eq!(x.len() * CHANNELS, R * FOURS * tiles.len(), "a block is as long as the strip");
    let mut sums: [[__m512i; 2]; R] = std::array::from_fn(|row| [_mm512_set1_epi32(begin[row]); 2]);
    let (mut x, mut tiles, parts) = (x.as_ptr(), tiles.as_ptr(), tiles.len() / CHANNELS);
    for _ in 0..parts {
        for _ in 0..FOURS {
            // SAFETY: both have so many fours; the pointers move by one of them, and over the second tile at the end of a part.
            unsafe {
                let weights = [_mm512_load_si512(tiles.cast()), _mm512_load_si512(tiles.add(TILE).cast())];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(*x.add(row));
                    for (sum, &weights) in sums.iter_mut().zip(&weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, weights, x);
                    }
                }
                (x, tiles) = (x.add(R), tiles.add(1));
            }
        }
        // SAFETY: as above.
        tiles = unsafe { tiles.add(TILE) };
    }
    for (found, sums) in found.iter_mut().zip(&sums) {
        for (found, &sum) in found.chunks_exact_mut(16).zip(sums) {
            // SAFETY: sixteen numbers are 64 bytes.
            unsafe { _mm512_storeu_si512(found.as_mut_ptr().cast(), sum) };
        }
    }
}
