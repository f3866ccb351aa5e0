//! A weight goes by in strips of output channels. Each is brought into the order in which a unit of the processor
//! multiplies, and meets all rows while it lies in the second-level cache. Units are AVX2's multipliers ([`super::outer`]), those of
//! AVX-512 VNNI ([`super::outer_vnni`]) and AMX's tiles ([`super::amx`]).

use std::ops::Range;

use super::blocks;
use super::dot::Weight;
use super::gemm::{GroupedSink, Scratch, Sink, Source};
use super::threads::in_parts;

/// Rows in the order of a unit that multiplies them with strips, block by block.
pub(crate) trait InBlocks: Sync {
    /// Output channels of a strip.
    const CHANNELS: usize;

    /// So many output channels.
    type Strip: Default;

    /// Bytes of a strip.
    fn strip_bytes(in_features: usize) -> usize;

    /// Brings output channels of `weight`, at most as many as a strip has, into `strip`, for sums over each `group` of input
    /// channels.
    ///
    /// # Safety
    ///
    /// The processor has the unit.
    unsafe fn fill(strip: &mut Self::Strip, weight: Weight<'_>, channels: Range<usize>, group: usize);

    /// Gives `sink` the sums of all rows and the output channels of `strips`, of which the first is `first` of `out_features`.
    ///
    /// # Safety
    ///
    /// The processor has the unit.
    unsafe fn multiply(&self, strips: &[Self::Strip], first: usize, out_features: usize, sink: &impl Sink);

    /// The same where each `group` of input channels has a scale for its sums.
    ///
    /// # Safety
    ///
    /// The processor has the unit.
    unsafe fn multiply_groups(
        &self,
        strips: &[Self::Strip],
        first: usize,
        shape: (usize, Groups),
        sink: &impl GroupedSink,
    );
}

/// How input channels are divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups {
    /// Input channels of a group.
    pub(crate) group: usize,
    /// Groups.
    pub(crate) count: usize,
}

impl Groups {
    /// The scales of `strips` strips of N output channels each, from `first` on: [strips, groups, N], 0 where a channel is missing.
    pub(crate) fn scales<const N: usize>(
        self,
        strips: usize,
        (first, out_features): (usize, usize),
        sink: &impl GroupedSink,
    ) -> Vec<Vec<[f32; N]>> {
        let scale = |first: usize, index| {
            std::array::from_fn(|place| match first + place {
                channel if channel < out_features => sink.scale(channel, index),
                _ => 0.0,
            })
        };
        let of_strip = |first| (0..self.count).map(|index| scale(first, index)).collect();
        (first..).step_by(N).take(strips).map(of_strip).collect()
    }
}

/// Gives `take` the sums of each row and the output channels of each strip, of which the first is `first` of `out_features`.
/// `sums_of` finds those of a block of rows, given as the number of its first, how many they are, and what the unit reads of them, and of a
/// strip, with its number.
#[inline(always)]
pub(crate) fn each_tile<B, S, T, F: Default + AsRef<[[T; C]]>, const C: usize>(
    blocks: impl Iterator<Item = (usize, usize, B)>,
    strips: &[S],
    (first, out_features): (usize, usize),
    mut sums_of: impl FnMut(&B, (usize, &S), &mut F),
    take: impl Fn(usize, usize, &[T]),
) {
    let mut sums = F::default();
    for (row, rows, block) in blocks {
        for (strip, first) in strips.iter().enumerate().zip((first..).step_by(C)) {
            sums_of(&block, strip, &mut sums);
            let channels = C.min(out_features - first);
            for (row, sums) in (row..).zip(&sums.as_ref()[..rows]) {
                take(row, first, &sums[..channels]);
            }
        }
    }
}

/// All sums of `rows` and `out_features` output channels of `weight`, given to `sink`; on one thread where these are at most
/// `alone`.
///
/// # Safety
///
/// The processor has the unit.
pub(crate) unsafe fn multiply<P: InBlocks>(
    rows: &P,
    weight: &impl Source,
    (out_features, alone): (usize, usize),
    sink: &impl Sink,
) {
    let tiles = |strips: &[P::Strip], first: usize| {
        // SAFETY: the caller promises it.
        unsafe { rows.multiply(strips, first, out_features, sink) }
    };
    in_strips::<P>(weight, (out_features, alone), weight.in_features(), &tiles);
}

/// The same of a weight that lies in strips, with so many input channels.
///
/// # Safety
///
/// The processor has the unit.
pub(crate) unsafe fn multiply_kept<P: InBlocks<Strip: Sync>>(
    rows: &P,
    (strips, in_features): (&[P::Strip], usize),
    (out_features, alone): (usize, usize),
    sink: &impl Sink,
) {
    let step = blocks::strips(P::strip_bytes(in_features), strips.len());
    in_parts(strips.len(), step, alone / P::CHANNELS, |part| {
        for first in part.clone().step_by(step) {
            let some = &strips[first..(first + step).min(part.end)];
            // SAFETY: the caller promises it.
            unsafe { rows.multiply(some, first * P::CHANNELS, out_features, sink) };
        }
    });
}

/// The same where each `group` of input channels has a scale for its sums.
///
/// # Safety
///
/// The processor has the unit.
pub(crate) unsafe fn multiply_groups<P: InBlocks>(
    rows: &P,
    weight: &impl Source,
    (out_features, alone): (usize, usize),
    groups: Groups,
    sink: &impl GroupedSink,
) {
    let tiles = |strips: &[P::Strip], first: usize| {
        // SAFETY: the caller promises it.
        unsafe { rows.multiply_groups(strips, first, (out_features, groups), sink) }
    };
    in_strips::<P>(weight, (out_features, alone), groups.group, &tiles);
}

/// Gives `tiles` some strips at a time, with the number of the first of their output channels.
fn in_strips<P: InBlocks>(
    weight: &impl Source,
    (out_features, alone): (usize, usize),
    group: usize,
    tiles: &(impl Fn(&[P::Strip], usize) + Sync),
) {
    let kept = blocks::strips(P::strip_bytes(weight.in_features()), out_features / P::CHANNELS);
    let step = kept * P::CHANNELS;
    in_parts(out_features, step, alone, |channels| {
        let (mut scratch, mut strips) = (Scratch::default(), Vec::new());
        for first in channels.clone().step_by(step) {
            let last = (first + step).min(channels.end);
            let part = weight.channels(first..last, &mut scratch);
            strips.resize_with((last - first).div_ceil(P::CHANNELS), P::Strip::default);
            for (index, strip) in strips.iter_mut().enumerate() {
                let start = index * P::CHANNELS;
                // SAFETY: the callers' callers promise that the processor has the unit.
                unsafe { P::fill(strip, part, start..(start + P::CHANNELS).min(last - first), group) };
            }
            tiles(&strips, first);
        }
    });
}
