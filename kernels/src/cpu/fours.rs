//! Output channels in the order of the units that multiply four bytes of each at a time, codes or halves of two bfloat16: AMX and
//! AVX-512 VNNI and BF16.
//!
//! Of each four bytes, one line has those of sixteen output channels, and the next one those of sixteen others.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::blocks::Blocks;

/// Output channels of a tile, and its lines: four bytes of each of them.
pub(crate) const TILE: usize = 16;
/// Output channels of a strip.
pub(crate) const CHANNELS: usize = 2 * TILE;
/// Bytes of an output channel in a tile: input channels, where these are codes.
pub(crate) const TERMS: usize = 64;

/// Rows of a block at most, for outer products: with two vectors of output channels, their sums fill 24 of 32 registers.
pub(crate) const ROWS: usize = 12;

/// What a tile's row takes. Tiles are read fastest where none of their rows lies across two lines of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [i8; TERMS]);

impl Default for Line {
    fn default() -> Self {
        Self([0; TERMS])
    }
}

/// Whether groups of so many input channels can have scales of their own: each is whole tiles.
pub(crate) fn fits(group: usize) -> bool {
    group.is_multiple_of(TERMS)
}

/// Bytes of a strip whose output channels have `width` of them each.
pub(crate) fn strip_bytes(width: usize) -> usize {
    width.div_ceil(TERMS) * CHANNELS * size_of::<Line>()
}

/// [`CHANNELS`] output channels: of each [`TERMS`] bytes two tiles [16, 16, 4], line by line in turn.
#[derive(Debug, Default)]
pub(crate) struct Strip(Vec<Line>);

impl Strip {
    /// Lines of some parts, of [`TERMS`] bytes of a channel each: [`CHANNELS`] a part.
    pub(crate) fn parts(&self, parts: Range<usize>) -> &[Line] {
        &self.0[parts.start * CHANNELS..parts.end * CHANNELS]
    }

    /// All its lines.
    pub(crate) fn all(&self) -> &[Line] {
        &self.0
    }

    /// Of at most [`CHANNELS`] channels of so many bytes; what is missing, of them and of whole lines, is zero.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) fn fill(&mut self, channels: &[&[i8]], width: usize) {
        assert!(channels.len() <= CHANNELS && channels.iter().all(|bytes| bytes.len() == width));
        self.0.resize(width.div_ceil(TERMS) * CHANNELS, Line::default());
        for half in 0..2 {
            let some = channels.get(half * TILE..).unwrap_or_default();
            for (index, tiles) in self.0.chunks_exact_mut(CHANNELS).enumerate() {
                let words = words_of(some, index * TERMS);
                for (lines, column) in tiles.chunks_exact_mut(2).zip(words) {
                    // SAFETY: a line is 64 bytes, and begins at a multiple of them.
                    unsafe { _mm512_store_si512(lines[half].0.as_mut_ptr().cast(), column) };
                }
            }
        }
    }
}

/// Rows of `width` bytes in blocks of words, with the bits of `flipped` turned over in each byte, and in the zeros that fill rows up to
/// whole [`TERMS`].
///
/// # Safety
///
/// The processor has AVX-512.
pub(crate) unsafe fn in_blocks(bytes: &[i8], width: usize, flipped: i8) -> Blocks<i32, ROWS> {
    let fill = |some: Range<usize>, words: &mut [MaybeUninit<i32>]| {
        let rows: Vec<&[i8]> = bytes[some.start * width..some.end * width].chunks_exact(width).collect();
        // SAFETY: the caller promises it.
        unsafe { in_turn(&rows, flipped, words) };
    };
    // SAFETY: `in_turn` writes all words.
    unsafe { Blocks::filled(bytes.len() / width.max(1), width.div_ceil(TERMS) * TERMS / 4, fill) }
}

/// The words of a block's rows, [words, rows], those after the last byte zero but for `flipped`.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn in_turn(rows: &[&[i8]], flipped: i8, words: &mut [MaybeUninit<i32>]) {
    let lanes = u16::MAX >> (TILE - rows.len());
    for (index, words) in words.chunks_exact_mut(TILE * rows.len()).enumerate() {
        for (words, column) in words.chunks_exact_mut(rows.len()).zip(words_of(rows, index * TERMS)) {
            let column = _mm512_xor_si512(column, _mm512_set1_epi8(flipped));
            // SAFETY: the mask has as many words as there are rows.
            unsafe { _mm512_mask_storeu_epi32(words.as_mut_ptr().cast(), lanes, column) };
        }
    }
}

/// Of at most [`TILE`] rows, the words of [`TERMS`] bytes from `start` on, a vector each; zeros where there is none.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words_of(rows: &[&[i8]], start: usize) -> [__m512i; TILE] {
    let vectors: [__m512i; TILE] = std::array::from_fn(|place| match rows.get(place) {
        Some(bytes) if bytes.len() > start => {
            let mask = u64::MAX >> TERMS.saturating_sub(bytes.len() - start);
            // SAFETY: what the mask leaves out is not read, and what it has is within the row.
            unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().add(start)) }
        }
        _ => _mm512_setzero_si512(),
    });
    transposed(&vectors)
}

/// 32-bit numbers [16, 16], columns as rows: first in fours of rows, within the quarters of vectors, then quarter by quarter.
#[target_feature(enable = "avx512f")]
fn transposed(rows: &[__m512i; TILE]) -> [__m512i; TILE] {
    let twos: [__m512i; TILE] = std::array::from_fn(|n| {
        let (one, other) = (rows[n / 2 * 2], rows[n / 2 * 2 + 1]);
        if n % 2 == 0 { _mm512_unpacklo_epi32(one, other) } else { _mm512_unpackhi_epi32(one, other) }
    });
    // Of the fours of rows 0, 1, 2 and 3: columns c, c + 4, c + 8 and c + 12 at 4 · four + c.
    let fours: [__m512i; TILE] = std::array::from_fn(|n| {
        let (four, column) = (n / 4 * 4, n % 4);
        let (one, other) = (twos[four + column / 2], twos[four + 2 + column / 2]);
        if column % 2 == 0 { _mm512_unpacklo_epi64(one, other) } else { _mm512_unpackhi_epi64(one, other) }
    });
    // Even and odd quarters of two fours.
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    std::array::from_fn(|n| {
        let (quarter, column) = (n / 4, n % 4);
        let of = |four: usize| (fours[4 * four + column], fours[4 * four + 4 + column]);
        let pair = |(one, other)| match quarter % 2 {
            0 => _mm512_shuffle_i32x4::<EVEN>(one, other),
            _ => _mm512_shuffle_i32x4::<ODD>(one, other),
        };
        let (low, high) = (pair(of(0)), pair(of(2)));
        match quarter / 2 {
            0 => _mm512_shuffle_i32x4::<EVEN>(low, high),
            _ => _mm512_shuffle_i32x4::<ODD>(low, high),
        }
    })
}

/// `found` + `sums` · `scales`, rounded after the product and after the sum. (Of a plain loop the compiler makes one that
/// gathers and scatters rows.)
#[target_feature(enable = "avx512f")]
pub(crate) fn add_scaled(found: &mut [f32; CHANNELS], sums: &[i32; CHANNELS], scales: &[f32; CHANNELS]) {
    let parts = found.chunks_exact_mut(16).zip(sums.chunks_exact(16)).zip(scales.chunks_exact(16));
    for ((found, sums), scales) in parts {
        // SAFETY: each holds sixteen numbers of four bytes.
        unsafe {
            let sums = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums.as_ptr().cast()));
            let scaled = _mm512_mul_ps(sums, _mm512_loadu_ps(scales.as_ptr()));
            _mm512_storeu_ps(found.as_mut_ptr(), _mm512_add_ps(_mm512_loadu_ps(found.as_ptr()), scaled));
        }
    }
}
