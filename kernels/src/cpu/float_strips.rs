//! Many rows in floating point: what [`super::strips`] is for codes. Strips of output channels are brought into a unit's order, unpacked
//! where they are in few bits, and multiplied with all rows while they lie in the second-level cache, so that such a weight is read once and
//! never stands in memory as floats. Units are the multipliers of AVX2 ([`super::outer_float`]) and of AVX-512 ([`super::outer_wide`]).

use std::ops::Range;

use super::blocks;
use super::float::Float;
use super::gemm::put;
use super::shared::Shared;
use super::threads::{ALONE, in_parts};
use super::view::Columns;
use super::weight_only::Scratch;

/// Rows in the order of a unit that multiplies them with strips, block by block.
pub(crate) trait FloatBlocks: Sync {
    /// Output channels of a strip.
    const CHANNELS: usize;

    /// An unpacked weight.
    type Weight: Copy + Default;

    /// So many output channels; missing ones are zero.
    type Strip: Default;

    /// Rows.
    fn rows(&self) -> usize;

    /// Bytes of a strip.
    fn strip_bytes(in_features: usize) -> usize;

    /// Brings unpacked weights [channels, K] into `strip`.
    ///
    /// # Safety
    ///
    /// The processor has the unit.
    unsafe fn fill(strip: &mut Self::Strip, weights: &[Self::Weight]);

    /// Gives `sink` the sums of all rows and the output channels of `strips`, of which the first is `first` of `out_features`.
    ///
    /// # Safety
    ///
    /// The processor has the unit.
    unsafe fn multiply(
        &self,
        strips: &[Self::Strip],
        first: usize,
        out_features: usize,
        sink: &impl FloatSink,
    );
}

/// Takes the sums of one row and of output channels from `first` on.
pub(crate) trait FloatSink: Sync {
    /// Called once for every row and output channel, by one of several threads.
    fn take(&self, row: usize, first: usize, sums: &[f32]);
}

/// Sums plus the bias of their channels.
pub(crate) struct Biased<'a, T> {
    /// Where they go.
    pub(crate) y: Columns<T>,
    /// `[N]`.
    pub(crate) bias: Option<&'a [f32]>,
}

impl<T: Float> FloatSink for Biased<'_, T> {
    // Becomes vectors of the unit whose loop it is part of.
    #[inline(always)]
    fn take(&self, row: usize, first: usize, sums: &[f32]) {
        // SAFETY: the output outlives the call, and each row and channel is given out once.
        let y = unsafe { self.y.part(row, first, sums.len()) };
        put(y, sums.iter().copied(), self.bias.map(|bias| &bias[first..]));
    }
}

/// A weight [N, K] in the type that it is multiplied in, some output channels at a time.
pub(crate) trait Weights<T>: Sync {
    /// N and K.
    fn shape(&self) -> (usize, usize);

    /// The output channels `range`, [channels, K], which may be made in `room`; zeros in place of those beyond N.
    fn channels<'a>(&'a self, range: Range<usize>, room: &'a mut Room<T>) -> &'a [T];
}

/// Room for the output channels of a strip.
#[derive(Debug, Default)]
pub(crate) struct Room<T> {
    /// [channels, K].
    pub(crate) weights: Vec<T>,
    /// For what belongs to one of them.
    pub(crate) scratch: Scratch,
}

/// All sums of `rows` and the transposed weight.
///
/// # Safety
///
/// The processor has the unit.
pub(crate) unsafe fn multiply<B: FloatBlocks>(
    rows: &B,
    weights: &impl Weights<B::Weight>,
    sink: &impl FloatSink,
) {
    let (out_features, in_features) = weights.shape();
    let step = blocks::strips(B::strip_bytes(in_features), out_features / B::CHANNELS) * B::CHANNELS;
    in_parts(out_features, step, ALONE / (rows.rows() * in_features).max(1), |channels| {
        let mut room = Room::default();
        let mut strips: Vec<B::Strip> = Vec::new();
        for first in channels.clone().step_by(step) {
            let last = (first + step).min(channels.end);
            strips.resize_with((last - first).div_ceil(B::CHANNELS), B::Strip::default);
            for (strip, first) in strips.iter_mut().zip((first..).step_by(B::CHANNELS)) {
                let channels = weights.channels(first..first + B::CHANNELS, &mut room);
                // SAFETY: the caller promises it.
                unsafe { B::fill(strip, channels) };
            }
            // SAFETY: the caller promises it.
            unsafe { rows.multiply(&strips, first, out_features, sink) };
        }
    });
}

/// The strips of a whole weight.
///
/// # Safety
///
/// The processor has the unit.
pub(crate) unsafe fn all_of<B: FloatBlocks<Strip: Send>>(weights: &impl Weights<B::Weight>) -> Vec<B::Strip> {
    let (out_features, in_features) = weights.shape();
    let mut strips: Vec<B::Strip> = Vec::new();
    strips.resize_with(out_features.div_ceil(B::CHANNELS), B::Strip::default);
    let count = strips.len();
    let shared = Shared::new(&mut strips);
    in_parts(count, 1, ALONE / (in_features * B::CHANNELS).max(1), |part| {
        let mut room = Room::default();
        for index in part {
            let first = index * B::CHANNELS;
            let channels = weights.channels(first..first + B::CHANNELS, &mut room);
            // SAFETY: each strip is given to one thread; the caller promises the unit.
            unsafe { B::fill(&mut shared.part(index, 1)[0], channels) };
        }
    });
    strips
}

/// All sums of `rows` and a weight [N, K] that lies in `strips`.
///
/// # Safety
///
/// The processor has the unit.
pub(crate) unsafe fn multiply_kept<B: FloatBlocks<Strip: Sync>>(
    rows: &B,
    strips: &[B::Strip],
    (out_features, in_features): (usize, usize),
    sink: &impl FloatSink,
) {
    let step = blocks::strips(B::strip_bytes(in_features), strips.len());
    let alone = ALONE / (rows.rows() * in_features * B::CHANNELS).max(1);
    in_parts(strips.len(), step, alone, |part| {
        for first in part.clone().step_by(step) {
            let some = &strips[first..(first + step).min(part.end)];
            // SAFETY: the caller promises it.
            unsafe { rows.multiply(some, first * B::CHANNELS, out_features, sink) };
        }
    });
}
