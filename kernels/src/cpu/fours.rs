//! Output channels in the order of the units that multiply four bytes of each at a time, codes or halves of two bfloat16: AMX and
//! AVX-512 VNNI and BF16.
//!
//! Of each 64 bytes, sixteen lines have those of sixteen output channels, four of each, and sixteen lines those of sixteen others.

use std::arch::x86_64::*;
use std::ops::Range;

/// Output channels of a tile, and its lines: four bytes of each of them.
pub(crate) const TILE: usize = 16;
/// Output channels of a strip.
pub(crate) const CHANNELS: usize = 2 * TILE;
/// Bytes of an output channel in a tile: input channels, where these are codes.
pub(crate) const TERMS: usize = 64;

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

/// [`CHANNELS`] output channels: of each [`TERMS`] bytes two tiles, [16, 16, 4].
#[derive(Debug, Default)]
pub(crate) struct Strip(Vec<Line>);

impl Strip {
    /// Lines of some parts, of [`TERMS`] bytes of a channel each: [`CHANNELS`] a part.
    pub(crate) fn lines(&self, parts: Range<usize>) -> &[Line] {
        &self.0[parts.start * CHANNELS..parts.end * CHANNELS]
    }

    /// All its lines.
    pub(crate) fn all(&self) -> &[Line] {
        &self.0
    }

    /// Of at most [`CHANNELS`] channels of so many bytes. The bits of `flipped` are turned over in each of them, and in the zeros that
    /// fill them up to whole lines. What stands for missing channels is of no use.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) fn fill(&mut self, channels: &[&[i8]], width: usize, flipped: i8) {
        assert!(channels.len() <= CHANNELS && channels.iter().all(|bytes| bytes.len() == width));
        self.0.resize(width.div_ceil(TERMS) * CHANNELS, Line::default());
        for (half, some) in channels.chunks(TILE).enumerate() {
            for (index, tiles) in self.0.chunks_exact_mut(CHANNELS).enumerate() {
                let start = index * TERMS;
                let mask = u64::MAX >> TERMS.saturating_sub(width - start);
                let rows: [__m512i; TILE] = std::array::from_fn(|place| match some.get(place) {
                    // SAFETY: what the mask leaves out is not read, and what it has is within the channel.
                    Some(bytes) => unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().add(start)) },
                    None => _mm512_setzero_si512(),
                });
                for (line, column) in tiles[half * TILE..].iter_mut().zip(transposed(&rows)) {
                    let column = _mm512_xor_si512(column, _mm512_set1_epi8(flipped));
                    // SAFETY: a line is 64 bytes, and begins at a multiple of them.
                    unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), column) };
                }
            }
        }
        if channels.len() <= TILE {
            self.0.chunks_exact_mut(CHANNELS).for_each(|tiles| tiles[TILE..].fill(Line::default()));
        }
    }
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
