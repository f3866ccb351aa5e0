//! Codes of activations times an int8 weight, a block of exact sums after the other.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use super::dot::{self, CHANNELS, ROWS, Weight};
use super::float::Float;
use super::isa::Isa;
use super::panel::Panel;
#[cfg(target_arch = "x86_64")]
use super::strips::{self, Groups};
use super::threads::{ALONE, in_parts};
use super::view::{Columns, elements};

/// Input channels that are summed in one go: four rows of them stay in the first-level cache.
const TERMS: usize = 2048;
/// Rows whose sums are kept while all input channels are gone through.
const KEPT_ROWS: usize = 8;
/// Output channels whose sums are.
const KEPT_CHANNELS: usize = 32;

/// Takes the sums of one row and of output channels from `first` on.
pub(crate) trait Sink: Sync {
    /// Called once for every row and output channel, by one of several threads.
    fn take(&self, row: usize, first: usize, sums: &[i32]);
}

/// Writes outputs, plus the bias that begins with theirs.
#[inline(always)]
pub(crate) fn put<T: Float>(y: &mut [T], outputs: impl Iterator<Item = f32>, bias: Option<&[f32]>) {
    match bias {
        Some(bias) => {
            for ((y, output), bias) in y.iter_mut().zip(outputs).zip(bias) {
                *y = T::narrow(output + bias);
            }
        }
        None => y.iter_mut().zip(outputs).for_each(|(y, output)| *y = T::narrow(output)),
    }
}

/// Where the codes of output channels come from.
pub(crate) trait Source: Sync {
    /// K.
    fn in_features(&self) -> usize;

    /// The codes of some output channels, which may be made in `scratch`.
    fn channels<'a>(&'a self, channels: Range<usize>, scratch: &'a mut Scratch) -> Weight<'a>;
}

/// Room for some output channels.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// i8 [channels, K].
    pub(crate) codes: Vec<i8>,
}

impl Source for Weight<'_> {
    fn in_features(&self) -> usize {
        Weight::in_features(self)
    }

    fn channels<'a>(&'a self, channels: Range<usize>, _: &'a mut Scratch) -> Weight<'a> {
        self.part(channels)
    }
}

/// Output channels that one thread multiplies so many rows with, without waking another.
pub(crate) fn alone(rows: usize, in_features: usize) -> usize {
    ALONE / (rows * in_features).max(1)
}

/// All sums of `rows` rows and `out_features` output channels, given to `sink`.
pub(crate) fn multiply(
    panel: &Panel,
    rows: usize,
    weight: &impl Source,
    out_features: usize,
    isa: Isa,
    sink: &impl Sink,
) {
    let alone = alone(rows, weight.in_features());
    #[cfg(target_arch = "x86_64")]
    match panel {
        // SAFETY: a panel is made only where the processor has the unit that it is for.
        Panel::Blocks(rows) => return unsafe { strips::multiply(rows, weight, (out_features, alone), sink) },
        // SAFETY: likewise.
        Panel::Tiles(rows) => return unsafe { strips::multiply(rows, weight, (out_features, alone), sink) },
        // SAFETY: likewise.
        Panel::Fours(rows) => return unsafe { strips::multiply(rows, weight, (out_features, alone), sink) },
        Panel::Wide { .. } => {}
    }
    in_parts(out_features, KEPT_CHANNELS, alone, |channels| {
        let mut scratch = Scratch::default();
        for first in channels.clone().step_by(KEPT_CHANNELS) {
            let last = (first + KEPT_CHANNELS).min(channels.end);
            let part = weight.channels(first..last, &mut scratch);
            for row in (0..rows).step_by(KEPT_ROWS) {
                let rows = row..(row + KEPT_ROWS).min(rows);
                let mut kept = [[0_i32; KEPT_CHANNELS]; KEPT_ROWS];
                for start in (0..part.in_features()).step_by(TERMS) {
                    let over = start..(start + TERMS).min(part.in_features());
                    blocks(panel, rows.clone(), part, last - first, over, isa, |row, channel, sum| {
                        kept[row][channel] = kept[row][channel].wrapping_add(sum);
                    });
                }
                for (row, kept) in rows.zip(&kept) {
                    sink.take(row, first, &kept[..last - first]);
                }
            }
        }
    });
}

/// Takes the scaled sums of one row and of output channels from `first` on.
pub(crate) trait GroupedSink: Sync {
    /// The scale of a group of an output channel.
    fn scale(&self, channel: usize, group: usize) -> f32;

    /// Called once for every row and output channel, by one of several threads.
    fn take(&self, row: usize, first: usize, sums: &[f32]);
}

/// The instructions, of those up to `isa`, for sums over each `group` of input channels.
pub(crate) fn isa_for_groups(group: usize, isa: Isa) -> Isa {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512Vnni && super::fours::fits(group) {
        return isa;
    }
    let _ = group;
    isa.min(Isa::Avx512)
}

/// The same where each `group` of input channels has a scale for its sums.
pub(crate) fn multiply_groups(
    panel: &Panel,
    rows: usize,
    weight: &impl Source,
    (out_features, group): (usize, usize),
    isa: Isa,
    sink: &impl GroupedSink,
) {
    let groups = weight.in_features() / group;
    let alone = alone(rows, weight.in_features());
    #[cfg(target_arch = "x86_64")]
    {
        let (shape, groups) = ((out_features, alone), Groups { group, count: groups });
        match panel {
            Panel::Blocks(rows) => {
                // SAFETY: a panel is made only where the processor has the unit that it is for.
                return unsafe { strips::multiply_groups(rows, weight, shape, groups, sink) };
            }
            Panel::Tiles(rows) => {
                // SAFETY: likewise.
                return unsafe { strips::multiply_groups(rows, weight, shape, groups, sink) };
            }
            Panel::Fours(rows) => {
                // SAFETY: likewise.
                return unsafe { strips::multiply_groups(rows, weight, shape, groups, sink) };
            }
            Panel::Wide { .. } => {}
        }
    }
    in_parts(out_features, KEPT_CHANNELS, alone, |channels| {
        let mut scratch = Scratch::default();
        for first in channels.clone().step_by(KEPT_CHANNELS) {
            let last = (first + KEPT_CHANNELS).min(channels.end);
            let part = weight.channels(first..last, &mut scratch);
            for row in (0..rows).step_by(KEPT_ROWS) {
                let rows = row..(row + KEPT_ROWS).min(rows);
                let mut kept = [[0.0_f32; KEPT_CHANNELS]; KEPT_ROWS];
                for index in 0..groups {
                    let scales: [f32; KEPT_CHANNELS] = std::array::from_fn(|channel| match first + channel {
                        channel if channel < last => sink.scale(channel, index),
                        _ => 0.0,
                    });
                    let over = index * group..(index + 1) * group;
                    blocks(panel, rows.clone(), part, last - first, over, isa, |row, channel, sum| {
                        kept[row][channel] += sum as f32 * scales[channel];
                    });
                }
                for (row, kept) in rows.zip(&kept) {
                    sink.take(row, first, &kept[..last - first]);
                }
            }
        }
    });
}

/// `codes`, i8 [M, K], times the transposed `weight`, i8 [N, K], both without gaps on the CPU: i32 [M, N].
///
/// # Errors
///
/// Only libtorch's.
pub(crate) fn product(codes: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
    let (rows, in_features) = codes.size2()?;
    let out_features = weight.size2()?.0;
    let mut sums = Tensor::f_empty([rows, out_features], (Kind::Int, Device::Cpu))?;
    let isa = Isa::here();
    let (in_features, out_features) = (in_features as usize, out_features as usize);
    let panel = Panel::new(elements(codes), in_features, isa);
    let weight = Weight::new(elements(weight), in_features);
    multiply(&panel, rows as usize, &weight, out_features, isa, &Columns::<i32>::new(&mut sums));
    Ok(sums)
}

impl Sink for Columns<i32> {
    fn take(&self, row: usize, first: usize, sums: &[i32]) {
        // SAFETY: the matrix outlives `multiply`, which gives each part out once.
        unsafe { self.part(row, first, sums.len()) }.copy_from_slice(sums);
    }
}

/// The sums of at most [`KEPT_ROWS`] rows and all `channels` channels of `part` over some input channels: each is added by row,
/// counted from the first, and channel.
fn blocks(
    panel: &Panel,
    rows: Range<usize>,
    part: Weight<'_>,
    channels: usize,
    over: Range<usize>,
    isa: Isa,
    mut add: impl FnMut(usize, usize, i32),
) {
    let (block_rows, block_channels) = shape(rows.len());
    for channel in (0..channels).step_by(block_channels) {
        let some_channels = channel..(channel + block_channels).min(channels);
        for row in rows.clone().step_by(block_rows) {
            let some_rows = row..(row + block_rows).min(rows.end);
            let count = some_rows.len();
            let sums = dot::block(panel, part, some_rows, some_channels.clone(), over.clone(), isa);
            for (place, sums) in sums.iter().enumerate().take(count) {
                for (sum, channel) in sums.iter().zip(some_channels.clone()) {
                    add(row - rows.start + place, channel, *sum);
                }
            }
        }
    }
}

/// Rows and output channels of a block: as many as AVX2 has registers for.
fn shape(rows: usize) -> (usize, usize) {
    if rows <= 2 { (2, CHANNELS) } else { (ROWS, CHANNELS / 2) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Kept(Mutex<Vec<i64>>, usize);

    impl Sink for Kept {
        fn take(&self, row: usize, first: usize, sums: &[i32]) {
            for (place, sum) in sums.iter().enumerate() {
                self.0.lock().unwrap()[row * self.1 + first + place] += i64::from(*sum);
            }
        }
    }

    /// Codes that repeat only after a long time, the extremes among them.
    fn codes(count: usize, seed: u32) -> Vec<i8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as i8
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn sums_are_exact_on_every_instruction_set_and_shape() {
        let tried: Vec<&str> = Isa::all_of_this_machine().map(Isa::name).collect();
        #[expect(clippy::print_stderr, reason = "a test says what it could not try")]
        {
            eprintln!("instruction sets of this machine: {}", tried.join(", "));
        }
        for isa in Isa::all_of_this_machine() {
            for (rows, out_features, in_features) in [
                (1, 1, 1),
                (1, 37, 100),
                (2, 4, 16),
                (3, 5, 17),
                (4, 3, 64),
                (5, 33, 63),
                (9, 70, 65),
                (17, 31, 129),
                (2, 9, 4200),
                (11, 6, 2049),
                (12, 16, 32),
                (25, 41, 147),
                (100, 130, 64),
                (33, 65, 300),
                (48, 16, 63),
            ] {
                let (mut x, mut weight) =
                    (codes(rows * in_features, 1), codes(out_features * in_features, 2));
                // The largest sum there can be.
                x[..in_features].fill(-128);
                weight[..in_features].fill(-128);
                let panel = Panel::new(&x, in_features, isa);
                let kept = Kept(Mutex::new(vec![0; rows * out_features]), out_features);
                multiply(&panel, rows, &Weight::new(&weight, in_features), out_features, isa, &kept);
                let expected: Vec<i64> = x
                    .chunks(in_features)
                    .flat_map(|x| {
                        weight.chunks(in_features).map(move |weight| {
                            x.iter().zip(weight).map(|(&x, &weight)| i64::from(x) * i64::from(weight)).sum()
                        })
                    })
                    .collect();
                assert!(
                    kept.0.into_inner().unwrap() == expected,
                    "{isa:?} {rows} {out_features} {in_features}"
                );
            }
        }
    }

    struct Scaled(Mutex<Vec<f32>>, usize);

    impl Scaled {
        /// Powers of two, so that no sum is rounded.
        fn scale(channel: usize, group: usize) -> f32 {
            ((channel + 3 * group) % 5) as f32 * 0.25
        }
    }

    impl GroupedSink for Scaled {
        fn scale(&self, channel: usize, group: usize) -> f32 {
            Self::scale(channel, group)
        }

        fn take(&self, row: usize, first: usize, sums: &[f32]) {
            self.0.lock().unwrap()[row * self.1 + first..][..sums.len()].copy_from_slice(sums);
        }
    }

    #[test]
    fn sums_of_groups_are_scaled_on_every_instruction_set() {
        for isa in Isa::all_of_this_machine() {
            for (rows, out_features, group, groups) in [
                (1, 5, 64, 3),
                (6, 33, 32, 2),
                (13, 70, 64, 3),
                (32, 32, 128, 2),
                (70, 9, 128, 1),
                (20, 50, 32, 3),
            ] {
                let in_features = group * groups;
                let (x, weight) = (codes(rows * in_features, 3), codes(out_features * in_features, 4));
                let isa = isa_for_groups(group, isa);
                let kept = Scaled(Mutex::new(vec![f32::NAN; rows * out_features]), out_features);
                let panel = Panel::new(&x, in_features, isa);
                let weights = Weight::new(&weight, in_features);
                multiply_groups(&panel, rows, &weights, (out_features, group), isa, &kept);
                let mut expected = Vec::new();
                for x in x.chunks(in_features) {
                    for (channel, weight) in weight.chunks(in_features).enumerate() {
                        let parts = x.chunks(group).zip(weight.chunks(group)).enumerate();
                        let scaled = parts.map(|(index, (x, weight))| {
                            let sum: i32 =
                                x.iter().zip(weight).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum();
                            sum as f32 * Scaled::scale(channel, index)
                        });
                        expected.push(scaled.sum::<f32>());
                    }
                }
                assert_eq!(
                    kept.0.into_inner().unwrap(),
                    expected,
                    "{isa:?} {rows} {out_features} {group} {groups}"
                );
            }
        }
    }
}
