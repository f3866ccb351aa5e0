//! Products of many rows in f32 with weights that are unpacked for them, by outer products of AVX2: the float counterpart of
//! [`super::outer`].

use std::arch::x86_64::*;

use super::blocks::{Blocks, CHANNELS, ROWS, with_rows};
use super::float_strips::{FloatBlocks, FloatSink};
use super::strips::each_tile;

/// Input channels that are summed in registers.
const TERMS: usize = 512;

/// Sums of a block's rows and a strip's channels.
type Sums = [[f32; CHANNELS]; ROWS];

/// Many rows as floats.
#[derive(Debug)]
pub(crate) struct Rows {
    blocks: Blocks<f32>,
    rows: usize,
}

impl Rows {
    /// From `x` [M, K].
    pub(crate) fn new(x: &[f32], in_features: usize) -> Self {
        let rows = x.len() / in_features.max(1);
        let row = |row: usize| x[row * in_features..][..in_features].iter().copied();
        Self { blocks: Blocks::new(rows, in_features, row), rows }
    }
}

impl FloatBlocks for Rows {
    const CHANNELS: usize = CHANNELS;

    type Weight = f32;

    /// [K, channels].
    type Strip = Vec<f32>;

    fn rows(&self) -> usize {
        self.rows
    }

    fn strip_bytes(in_features: usize) -> usize {
        in_features * CHANNELS * size_of::<f32>()
    }

    unsafe fn fill(strip: &mut Vec<f32>, weights: &[f32]) {
        strip.resize(weights.len(), 0.0);
        // SAFETY: the caller has AVX2.
        unsafe { transpose(weights, weights.len() / CHANNELS, strip) };
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn multiply(&self, strips: &[Vec<f32>], first: usize, out_features: usize, sink: &impl FloatSink) {
        let blocks = self.blocks.iter().map(|(row, rows, values)| (row, rows, (rows, values)));
        let sums_of = |&(rows, values): &_, (_, strip): (_, &Vec<f32>), sums: &mut Sums| {
            with_rows!(rows, [1 2 3 4 5 6], sums_of(values, strip, sums));
        };
        each_tile(blocks, strips, (first, out_features), sums_of, |row, first, sums| {
            sink.take(row, first, sums)
        });
    }
}

/// `x` [K, R] and `strip` [K, channels]. Parts of [`TERMS`] are summed by themselves, so that rounding grows with their number
/// and not with that of all terms.
#[target_feature(enable = "avx2,fma")]
fn sums_of<const R: usize>(x: &[f32], strip: &[f32], found: &mut Sums) {
    *found = Sums::default();
    for (x, strip) in x.chunks(TERMS * R).zip(strip.chunks(TERMS * CHANNELS)) {
        add_part::<R>(x, strip, found);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_part<const R: usize>(x: &[f32], strip: &[f32], found: &mut Sums) {
    let terms = strip.len() / CHANNELS;
    assert_eq!(x.len(), R * terms, "a block is as long as the strip");
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    let (mut x, mut strip) = (x.as_ptr(), strip.as_ptr());
    for _ in 0..terms {
        // SAFETY: both have so many terms; the pointers move by one of them.
        unsafe {
            let weights = [_mm256_loadu_ps(strip), _mm256_loadu_ps(strip.add(CHANNELS / 2))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*x.add(row));
                for (sum, &weights) in sums.iter_mut().zip(&weights) {
                    *sum = _mm256_fmadd_ps(weights, x, *sum);
                }
            }
            (x, strip) = (x.add(R), strip.add(CHANNELS));
        }
    }
    for (found, sums) in found.iter_mut().zip(&sums) {
        for (found, &sum) in found.chunks_exact_mut(8).zip(sums) {
            // SAFETY: eight numbers are 32 bytes.
            unsafe {
                _mm256_storeu_ps(found.as_mut_ptr(), _mm256_add_ps(_mm256_loadu_ps(found.as_ptr()), sum))
            };
        }
    }
}

/// [channels, K] to [K, channels].
#[target_feature(enable = "avx2")]
fn transpose(channels: &[f32], in_features: usize, strip: &mut [f32]) {
    assert!(channels.len() == CHANNELS * in_features && strip.len() == channels.len());
    let whole = in_features / 8 * 8;
    for half in 0..CHANNELS / 8 {
        let first = half * 8;
        for k in (0..whole).step_by(8) {
            let row = |n: usize| {
                let place = &channels[(first + n) * in_features + k..][..8];
                // SAFETY: eight numbers are 32 bytes.
                unsafe { _mm256_loadu_ps(place.as_ptr()) }
            };
            let rows: [__m256; 8] = std::array::from_fn(row);
            let twos: [__m256; 8] = std::array::from_fn(|n| match n % 2 {
                0 => _mm256_unpacklo_ps(rows[n], rows[n + 1]),
                _ => _mm256_unpackhi_ps(rows[n - 1], rows[n]),
            });
            // Of four channels in either half of a vector: the terms n % 4 and n % 4 + 4.
            let fours: [__m256; 8] = std::array::from_fn(|n| {
                let (one, other) = (twos[n / 4 * 4 + n % 4 / 2], twos[n / 4 * 4 + 2 + n % 4 / 2]);
                match n % 2 {
                    0 => _mm256_shuffle_ps::<0b01_00_01_00>(one, other),
                    _ => _mm256_shuffle_ps::<0b11_10_11_10>(one, other),
                }
            });
            for n in 0..8 {
                let (one, other) = (fours[n % 4], fours[n % 4 + 4]);
                let eight = match n / 4 {
                    0 => _mm256_permute2f128_ps::<0x20>(one, other),
                    _ => _mm256_permute2f128_ps::<0x31>(one, other),
                };
                let place = &mut strip[(k + n) * CHANNELS + first..][..8];
                // SAFETY: eight numbers are 32 bytes.
                unsafe { _mm256_storeu_ps(place.as_mut_ptr(), eight) };
            }
        }
    }
    for (channel, weights) in channels.chunks_exact(in_features).enumerate() {
        for (k, &weight) in weights.iter().enumerate().skip(whole) {
            strip[k * CHANNELS + channel] = weight;
        }
    }
}
