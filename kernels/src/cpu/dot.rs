//! Exact integer products of some rows with some output channels.
//!
//! A block of M rows and N channels is summed in registers over a range of input channels. Sums are int32; they do not
//! overflow below [`MOST_IN_FEATURES`] input channels.

use std::ops::Range;

use super::isa::Isa;
use super::panel::Panel;

/// 2^31 / 2^14, exclusive.
pub(crate) const MOST_IN_FEATURES: usize = (1 << 17) - 1;

/// Rows of a block at most.
pub(crate) const ROWS: usize = 4;
/// Output channels of a block at most.
pub(crate) const CHANNELS: usize = 4;

/// Sums of a block: of row m and channel n at \[m\]\[n\].
pub(crate) type Sums = [[i32; CHANNELS]; ROWS];

/// An int8 matrix [N, K], a row an output channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight<'a> {
    codes: &'a [i8],
    in_features: usize,
}

impl<'a> Weight<'a> {
    /// Codes i8 [N, K].
    pub(crate) fn new(codes: &'a [i8], in_features: usize) -> Self {
        Self { codes, in_features }
    }

    /// K.
    pub(crate) fn in_features(&self) -> usize {
        self.in_features
    }

    /// Some output channels of it.
    pub(crate) fn part(&self, channels: Range<usize>) -> Self {
        Self {
            codes: &self.codes[channels.start * self.in_features..channels.end * self.in_features],
            in_features: self.in_features,
        }
    }

    /// The codes of an output channel, `[K]`.
    pub(crate) fn channel(&self, channel: usize) -> &'a [i8] {
        &self.codes[channel * self.in_features..][..self.in_features]
    }
}

/// Sums of `rows` (at most [`ROWS`]) times `channels` (at most [`CHANNELS`]) over the input channels `over`, which begin
/// at a multiple of [`Panel::WIDE`].
pub(crate) fn block(
    panel: &Panel,
    weight: Weight<'_>,
    rows: Range<usize>,
    channels: Range<usize>,
    over: Range<usize>,
    isa: Isa,
) -> Sums {
    let mut weights: [&[i8]; CHANNELS] = [&[]; CHANNELS];
    for (slot, channel) in weights.iter_mut().zip(channels.clone()) {
        *slot = &weight.channel(channel)[over.clone()];
    }
    match panel {
        Panel::Wide { values, stride } => {
            let end = over.end.next_multiple_of(Panel::WIDE).min(*stride);
            let mut x: [&[i16]; ROWS] = [&[]; ROWS];
            for (slot, row) in x.iter_mut().zip(rows.clone()) {
                *slot = &values[row * stride..][over.start..end];
            }
            wide(&x, &weights, rows.len(), channels.len(), isa)
        }
        #[cfg(target_arch = "x86_64")]
        Panel::Blocks(_) | Panel::Tiles(_) | Panel::Fours(_) => {
            unreachable!("they meet strips of the weight")
        }
    }
}

/// A call with the numbers of rows and channels known when it is compiled.
macro_rules! with_counts {
    ($rows:expr, $channels:expr, $function:ident($($argument:expr),*)) => {
        match ($rows, $channels) {
            (1, 1) => $function::<1, 1>($($argument),*),
            (1, 2) => $function::<1, 2>($($argument),*),
            (1, 3) => $function::<1, 3>($($argument),*),
            (1, _) => $function::<1, 4>($($argument),*),
            (2, 1) => $function::<2, 1>($($argument),*),
            (2, 2) => $function::<2, 2>($($argument),*),
            (2, 3) => $function::<2, 3>($($argument),*),
            (2, _) => $function::<2, 4>($($argument),*),
            (3, 1) => $function::<3, 1>($($argument),*),
            (3, 2) => $function::<3, 2>($($argument),*),
            (3, 3) => $function::<3, 3>($($argument),*),
            (3, _) => $function::<3, 4>($($argument),*),
            (_, 1) => $function::<4, 1>($($argument),*),
            (_, 2) => $function::<4, 2>($($argument),*),
            (_, 3) => $function::<4, 3>($($argument),*),
            (_, _) => $function::<4, 4>($($argument),*),
        }
    };
}

fn wide(x: &[&[i16]; ROWS], weights: &[&[i8]; CHANNELS], rows: usize, channels: usize, isa: Isa) -> Sums {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        // SAFETY: `isa` says that the processor has AVX2.
        return unsafe { with_counts!(rows, channels, wide_avx2(x, weights)) };
    }
    let _ = isa;
    let mut sums = Sums::default();
    for (row, x) in x.iter().enumerate().take(rows) {
        for (channel, weights) in weights.iter().enumerate().take(channels) {
            sums[row][channel] =
                x.iter().zip(*weights).map(|(&x, &weight)| i32::from(x) * i32::from(weight)).sum();
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn wide_avx2<const M: usize, const N: usize>(x: &[&[i16]; ROWS], weights: &[&[i8]; CHANNELS]) -> Sums {
    use std::arch::x86_64::*;

    const STEP: usize = Panel::WIDE;
    let terms = weights[0].len();
    let whole = terms / STEP * STEP;
    assert!(x[..M].iter().all(|x| x.len() == terms.next_multiple_of(STEP)));
    assert!(weights[..N].iter().all(|weights| weights.len() == terms));
    let mut sums = [[_mm256_setzero_si256(); N]; M];
    let mut add = |at: usize, weights: [__m128i; N]| {
        let weights = weights.map(|weights| _mm256_cvtepi8_epi16(weights));
        for m in 0..M {
            // SAFETY: a row has `at + STEP` values at least, see above.
            let x = unsafe { _mm256_loadu_si256(x[m].as_ptr().add(at).cast()) };
            for n in 0..N {
                sums[m][n] = _mm256_add_epi32(sums[m][n], _mm256_madd_epi16(x, weights[n]));
            }
        }
    };
    for at in (0..whole).step_by(STEP) {
        // SAFETY: `at + STEP` is at most `terms`, as many as each channel has.
        add(at, std::array::from_fn(|n| unsafe { _mm_loadu_si128(weights[n].as_ptr().add(at).cast()) }));
    }
    if whole < terms {
        add(
            whole,
            std::array::from_fn(|n| {
                let mut rest = [0_i8; STEP];
                rest[..terms - whole].copy_from_slice(&weights[n][whole..]);
                // SAFETY: 16 bytes are read from 16.
                unsafe { _mm_loadu_si128(rest.as_ptr().cast()) }
            }),
        );
    }
    let mut found = Sums::default();
    for m in 0..M {
        let of = |n: usize| if n < N { sums[m][n] } else { _mm256_setzero_si256() };
        let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(of(0), of(1)), _mm256_hadd_epi32(of(2), of(3)));
        let four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        // SAFETY: four int32 fill the row.
        unsafe { _mm_storeu_si128(found[m].as_mut_ptr().cast(), four) };
    }
    found
}
