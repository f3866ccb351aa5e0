//! Strips of an int8 weight for the units that multiply codes in fours, AMX and AVX-512 VNNI, and whole weights that lie in them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::dot::Weight;
use super::fours::{CHANNELS, Strip, TERMS, TILE};
use super::shared::Shared;
use super::threads::{ALONE, in_parts};

/// [`CHANNELS`] output channels, and what VNNI's sums with them begin with.
#[derive(Debug, Default)]
pub(crate) struct CodeStrip {
    lines: Strip,
    /// i32 [groups, channels]: see [`CodeStrip::find_beginnings`].
    beginnings: Vec<[i32; CHANNELS]>,
}

impl CodeStrip {
    /// What is added to a row's codes for VNNI, whose first factor has no sign.
    pub(crate) const SHIFT: u8 = 128;

    /// All channels of a weight i8 [N, K] whose sums are over all input channels.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512 VNNI.
    pub(crate) unsafe fn all_of(weight: Weight<'_>, out_features: usize) -> Vec<Self> {
        let mut strips: Vec<Self> = Vec::new();
        strips.resize_with(out_features.div_ceil(CHANNELS), Self::default);
        let shared = Shared::new(&mut strips);
        in_parts(out_features, CHANNELS, ALONE / weight.in_features().max(1), |channels| {
            for first in channels.clone().step_by(CHANNELS) {
                // SAFETY: each strip is given to one thread; the caller has the instructions.
                unsafe {
                    let strip = &mut shared.part(first / CHANNELS, 1)[0];
                    strip.fill(weight, first..(first + CHANNELS).min(channels.end));
                    strip.find_beginnings(weight.in_features());
                }
            }
        });
        strips
    }

    /// Brings at most [`CHANNELS`] channels of `weight` here.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512.
    pub(crate) unsafe fn fill(&mut self, weight: Weight<'_>, channels: Range<usize>) {
        let codes: Vec<&[i8]> = channels.map(|channel| weight.channel(channel)).collect();
        // SAFETY: the caller promises it.
        unsafe { self.lines.fill(&codes, weight.in_features()) };
    }

    /// Of each `group` of input channels, which is all of them or whole parts: what the shift of a row's codes adds to the sums, negative.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(crate) fn find_beginnings(&mut self, group: usize) {
        let parts = group.div_ceil(TERMS).max(1);
        self.beginnings.clear();
        for group in self.lines.all().chunks(parts * CHANNELS) {
            let mut sums = [_mm512_setzero_si512(); 2];
            for lines in group.chunks_exact(2) {
                for (sum, line) in sums.iter_mut().zip(lines) {
                    // SAFETY: a line is 64 bytes, and begins at a multiple of them.
                    let codes = unsafe { _mm512_load_si512(line.0.as_ptr().cast()) };
                    *sum = _mm512_dpbusd_epi32(*sum, _mm512_set1_epi8(Self::SHIFT as i8), codes);
                }
            }
            let mut beginnings = [0; CHANNELS];
            for (beginnings, sum) in beginnings.chunks_exact_mut(TILE).zip(sums) {
                let negative = _mm512_sub_epi32(_mm512_setzero_si512(), sum);
                // SAFETY: sixteen numbers are 64 bytes.
                unsafe { _mm512_storeu_si512(beginnings.as_mut_ptr().cast(), negative) };
            }
            self.beginnings.push(beginnings);
        }
    }

    /// What sums begin with, a group after the other.
    pub(crate) fn beginnings(&self) -> &[[i32; CHANNELS]] {
        &self.beginnings
    }

    /// The codes, or those of some parts.
    pub(crate) fn lines(&self) -> &Strip {
        &self.lines
    }

    /// The code of an output channel, counted in the strip, and of an input channel.
    pub(crate) fn code(&self, channel: usize, input: usize) -> i8 {
        let part = &self.lines.all()[input / TERMS * CHANNELS..][..CHANNELS];
        let (four, place) = (input % TERMS / 4, input % 4);
        part[2 * four + channel / TILE].0[channel % TILE * 4 + place]
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.lines.all()) + size_of_val(self.beginnings.as_slice())
    }
}
