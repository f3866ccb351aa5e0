//! Products of rows with an int8 weight by outer products, for processors that multiply int8 in fours: AVX-512 VNNI.
//!
//! A tile of [`ROWS`] rows and [`CHANNELS`] output channels is summed in registers. For each four input channels, one vector holds
//! the codes of sixteen output channels, and one the four codes of a row, sixteen times: `vpdpbusd` multiplies and adds them. Its
//! first factor has no sign: a row's codes are [`CodeStrip::SHIFT`] above themselves, and sums begin with what that adds taken off.

use std::arch::x86_64::*;
use std::ops::Range;

use super::blocks::{Blocks, with_rows};
use super::code_strips::CodeStrip;
use super::dot::Weight;
use super::fours::{self, CHANNELS, Line, ROWS, TERMS, TILE, add_scaled};
use super::gemm::{GroupedSink, Sink};
use super::strips::{Groups, InBlocks, each_tile};

/// Fours of input channels in a part of a strip.
const FOURS: usize = TERMS / 4;

/// Codes of rows in fours, shifted; each row is filled up to whole [`TERMS`], where weights are zero.
#[derive(Debug)]
pub(crate) struct Rows(Blocks<i32, ROWS>);

impl Rows {
    /// From codes i8 [M, K].
    ///
    /// # Safety
    ///
    /// The unit is here.
    pub(crate) unsafe fn new(codes: &[i8], in_features: usize) -> Self {
        // SAFETY: where there is VNNI, there is AVX-512: see `Isa`.
        Self(unsafe { fours::in_blocks(codes, in_features, CodeStrip::SHIFT as i8) })
    }
}

/// Sums of a block's rows and a strip's channels.
type Sums = [[i32; CHANNELS]; ROWS];

impl InBlocks for Rows {
    const CHANNELS: usize = CHANNELS;

    type Strip = CodeStrip;

    fn strip_bytes(in_features: usize) -> usize {
        fours::strip_bytes(in_features)
    }

    unsafe fn fill(strip: &mut CodeStrip, weight: Weight<'_>, channels: Range<usize>, group: usize) {
        // SAFETY: where there is VNNI, there is AVX-512: see `Isa`.
        unsafe {
            strip.fill(weight, channels);
            strip.find_beginnings(group);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn multiply(&self, strips: &[CodeStrip], first: usize, out_features: usize, sink: &impl Sink) {
        let blocks = self.0.iter().map(|(row, rows, fours)| (row, rows, (rows, fours)));
        let sums_of = |&block: &_, (_, strip): (_, &CodeStrip), sums: &mut Sums| {
            tile_sums(block, strip.lines().all(), &strip.beginnings()[0], sums);
        };
        each_tile(blocks, strips, (first, out_features), sums_of, |row, first, sums| {
            sink.take(row, first, sums)
        });
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn multiply_groups(
        &self,
        strips: &[CodeStrip],
        first: usize,
        (out_features, groups): (usize, Groups),
        sink: &impl GroupedSink,
    ) {
        assert!(fours::fits(groups.group), "groups are whole parts of a strip");
        let width = groups.group / TERMS;
        let scales = groups.scales::<CHANNELS>(strips.len(), (first, out_features), sink);
        let blocks = self.0.iter().map(|(row, rows, fours)| (row, rows, (rows, fours)));
        let mut sums = [[0; CHANNELS]; ROWS];
        let scaled_sums = |&(rows, fours): &(usize, &[i32]),
                           (index, strip): (usize, &CodeStrip),
                           scaled: &mut [[f32; CHANNELS]; ROWS]| {
            *scaled = Default::default();
            let of_groups =
                fours.chunks(width * FOURS * rows).zip(strip.lines().all().chunks(width * CHANNELS));
            for (((fours, lines), beginnings), scales) in
                of_groups.zip(strip.beginnings()).zip(&scales[index])
            {
                tile_sums((rows, fours), lines, beginnings, &mut sums);
                for (scaled, sums) in scaled.iter_mut().zip(&sums).take(rows) {
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
fn tile_sums((rows, fours): (usize, &[i32]), lines: &[Line], begin: &[i32; CHANNELS], sums: &mut Sums) {
    with_rows!(rows, [1 2 3 4 5 6 7 8 9 10 11 12], sums_of(fours, lines, begin, sums));
}

/// `x` [fours, R], `lines` as a [`CodeStrip`] has them.
#[target_feature(enable = "avx512f,avx512vnni")]
fn sums_of<const R: usize>(x: &[i32], lines: &[Line], begin: &[i32; CHANNELS], found: &mut Sums) {
    assert_eq!(x.len() * CHANNELS, R * FOURS * lines.len(), "a block is as long as the strip");
    // SAFETY: sixteen numbers are 64 bytes.
    let begin = [0, TILE].map(|half| unsafe { _mm512_loadu_si512(begin[half..][..TILE].as_ptr().cast()) });
    let mut sums = [begin; R];
    for (x, lines) in x.chunks_exact(R).zip(lines.chunks_exact(2)) {
        // SAFETY: a line is 64 bytes, and begins at a multiple of them.
        let weights = [0, 1].map(|half| unsafe { _mm512_load_si512(lines[half].0.as_ptr().cast()) });
        for (&x, sums) in x.iter().zip(&mut sums) {
            let x = _mm512_set1_epi32(x);
            for (sum, &weights) in sums.iter_mut().zip(&weights) {
                *sum = _mm512_dpbusd_epi32(*sum, x, weights);
            }
        }
    }
    for (found, sums) in found.iter_mut().zip(&sums) {
        for (found, &sum) in found.chunks_exact_mut(16).zip(sums) {
            // SAFETY: sixteen numbers are 64 bytes.
            unsafe { _mm512_storeu_si512(found.as_mut_ptr().cast(), sum) };
        }
    }
}
