//! Products of many rows with an int8 weight by outer products, for processors that multiply 16-bit integers: AVX2.
//!
//! A tile of [`ROWS`] rows and [`CHANNELS`] output channels is summed in registers. For each pair of input channels, one vector
//! holds the pairs of eight output channels, and one the pair of a row, eight times: `vpmaddwd` multiplies and adds pairs. So
//! no sum ever lies across a register, and twelve of sixteen registers are sums.

use std::arch::x86_64::*;
use std::ops::Range;

use super::blocks::{Blocks, CHANNELS, ROWS, with_rows};
use super::dot::Weight;
use super::gemm::{GroupedSink, Sink};
use super::strips::{Groups, InBlocks, each_tile};

/// What a pair of input channels takes in a strip.
const PAIR: usize = 2 * CHANNELS;

/// [`CHANNELS`] output channels, i16 [K / 2, channels, 2], missing ones and an odd last input channel zero.
#[derive(Debug, Default)]
pub(crate) struct Strip(Vec<i16>);

impl Strip {
    /// Of at most [`CHANNELS`] channels of `weight`.
    #[target_feature(enable = "avx2")]
    fn fill(&mut self, weight: Weight<'_>, channels: Range<usize>) {
        let in_features = weight.in_features();
        // Everything is written below where nothing is missing.
        let missing = channels.len() < CHANNELS || in_features % 2 == 1;
        if missing {
            self.0.clear();
        }
        self.0.resize(in_features.div_ceil(2) * PAIR, 0);
        let codes: Vec<&[i8]> = channels.map(|channel| weight.channel(channel)).collect();
        let mut done = [0; 2];
        for (half, done) in done.iter_mut().enumerate() {
            if let Some(codes) = codes.get(8 * half..8 * half + 8) {
                *done = transpose(codes, half, &mut self.0);
            }
        }
        for (place, codes) in codes.iter().enumerate() {
            for (k, &code) in codes.iter().enumerate().skip(done[place / 8]) {
                self.0[k / 2 * PAIR + 2 * place + k % 2] = i16::from(code);
            }
        }
    }
}

/// Codes i8 [M, K] as pairs of 16-bit codes.
pub(crate) fn blocks(codes: &[i8], in_features: usize) -> Blocks<i32> {
    let rows = codes.len() / in_features.max(1);
    Blocks::new(rows, in_features.div_ceil(2), |row| {
        let codes = codes[row * in_features..][..in_features].chunks(2);
        codes.map(|pair| {
            let second = pair.get(1).copied().unwrap_or_default();
            i32::from(second) << 16 | i32::from(pair[0]) & 0xFFFF
        })
    })
}

impl InBlocks for Blocks<i32> {
    const CHANNELS: usize = CHANNELS;

    type Strip = Strip;

    fn strip_bytes(in_features: usize) -> usize {
        in_features.div_ceil(2) * PAIR * size_of::<i16>()
    }

    unsafe fn fill(strip: &mut Strip, weight: Weight<'_>, channels: Range<usize>, _: usize) {
        // SAFETY: the caller has AVX2.
        unsafe { strip.fill(weight, channels) };
    }

    #[target_feature(enable = "avx2")]
    unsafe fn multiply(&self, strips: &[Strip], first: usize, out_features: usize, sink: &impl Sink) {
        let blocks = self.iter().map(|(row, rows, pairs)| (row, rows, (rows, pairs)));
        let sums_of = |&block: &_, (_, strip): (_, &Strip), found: &mut Sums| sums(block, strip, found);
        each_tile(blocks, strips, (first, out_features), sums_of, |row, first, sums| {
            sink.take(row, first, sums)
        });
    }

    #[target_feature(enable = "avx2")]
    unsafe fn multiply_groups(
        &self,
        strips: &[Strip],
        first: usize,
        (out_features, groups): (usize, Groups),
        sink: &impl GroupedSink,
    ) {
        assert_eq!(groups.group % 2, 0, "pairs of input channels lie in one group");
        let scales = groups.scales(strips.len(), (first, out_features), sink);
        let blocks = self.iter().map(|(row, rows, pairs)| (row, rows, (rows, pairs)));
        let sums_of = |&block: &_, (index, strip): (usize, &Strip), found: &mut ScaledSums| {
            scaled_sums(block, strip, (&scales[index], groups.group), found);
        };
        each_tile(blocks, strips, (first, out_features), sums_of, |row, first, sums| {
            sink.take(row, first, sums)
        });
    }
}

/// Sums of at most [`ROWS`] rows and the channels of a strip.
type Sums = [[i32; CHANNELS]; ROWS];

/// The same, scaled.
type ScaledSums = [[f32; CHANNELS]; ROWS];

/// The sums of a block of so many rows over all input channels of `strip`.
#[target_feature(enable = "avx2")]
fn sums((rows, pairs): (usize, &[i32]), strip: &Strip, found: &mut Sums) {
    with_rows!(rows, [1 2 3 4 5 6], sums_of(pairs, &strip.0, found));
}

/// The same over each `group` of input channels, an even number, times its scale of `scales` [K / group, channels]; added up.
#[target_feature(enable = "avx2")]
fn scaled_sums(
    (rows, pairs): (usize, &[i32]),
    strip: &Strip,
    (scales, group): (&[[f32; CHANNELS]], usize),
    found: &mut ScaledSums,
) {
    *found = ScaledSums::default();
    let mut sums = Sums::default();
    let groups = pairs.chunks(group / 2 * rows).zip(strip.0.chunks(group / 2 * PAIR));
    for ((pairs, strip), scales) in groups.zip(scales) {
        with_rows!(rows, [1 2 3 4 5 6], sums_of(pairs, strip, &mut sums));
        for (found, sums) in found.iter_mut().zip(&sums).take(rows) {
            add_scaled(found, sums, scales);
        }
    }
}

/// `x` [pairs, R] and `strip` [pairs, channels, 2].
#[target_feature(enable = "avx2")]
fn sums_of<const R: usize>(x: &[i32], strip: &[i16], found: &mut Sums) {
    let pairs = strip.len() / PAIR;
    assert_eq!(x.len(), R * pairs, "a block is as long as the strip");
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    let (mut x, mut strip) = (x.as_ptr(), strip.as_ptr());
    for _ in 0..pairs {
        // SAFETY: both have so many pairs; the pointers move by one of them.
        unsafe {
            let weights = [_mm256_loadu_si256(strip.cast()), _mm256_loadu_si256(strip.add(PAIR / 2).cast())];
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_epi32(*x.add(row));
                for (sum, &weights) in sums.iter_mut().zip(&weights) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, x));
                }
            }
            (x, strip) = (x.add(R), strip.add(PAIR));
        }
    }
    for (found, sums) in found.iter_mut().zip(&sums) {
        for (found, &sum) in found.chunks_exact_mut(8).zip(sums) {
            // SAFETY: eight numbers are 32 bytes.
            unsafe { _mm256_storeu_si256(found.as_mut_ptr().cast(), sum) };
        }
    }
}

/// `found` + `sums` · `scales`, rounded after the product and after the sum.
#[target_feature(enable = "avx2")]
fn add_scaled(found: &mut [f32; CHANNELS], sums: &[i32; CHANNELS], scales: &[f32; CHANNELS]) {
    let eights = found.chunks_exact_mut(8).zip(sums.chunks_exact(8)).zip(scales.chunks_exact(8));
    for ((found, sums), scales) in eights {
        // SAFETY: each holds eight numbers of four bytes.
        unsafe {
            let sums = _mm256_cvtepi32_ps(_mm256_loadu_si256(sums.as_ptr().cast()));
            let scaled = _mm256_mul_ps(sums, _mm256_loadu_ps(scales.as_ptr()));
            _mm256_storeu_ps(found.as_mut_ptr(), _mm256_add_ps(_mm256_loadu_ps(found.as_ptr()), scaled));
        }
    }
}

/// Writes whole sixteens of input channels of eight output channels, in the first or second `half` of a strip; gives how many
/// input channels are done. Pairs of codes are moved as 16-bit numbers and then widened.
#[target_feature(enable = "avx2")]
fn transpose(codes: &[&[i8]], half: usize, strip: &mut [i16]) -> usize {
    let codes: &[&[i8]; 8] = codes.try_into().expect("eight output channels");
    let in_features = codes[0].len();
    let whole = in_features / 16 * 16;
    assert!(codes.iter().all(|codes| codes.len() == in_features) && strip.len() >= whole / 2 * PAIR);
    for k in (0..whole).step_by(16) {
        // SAFETY: each channel has sixteen codes from here on.
        let rows: [__m128i; 8] =
            std::array::from_fn(|n| unsafe { _mm_loadu_si128(codes[n].as_ptr().add(k).cast()) });
        let twos: [__m128i; 8] = std::array::from_fn(|n| {
            let (one, other) = (rows[n / 2 * 2], rows[n / 2 * 2 + 1]);
            if n % 2 == 0 { _mm_unpacklo_epi16(one, other) } else { _mm_unpackhi_epi16(one, other) }
        });
        // Of four output channels: the pairs 0 and 1, 2 and 3, 4 and 5, 6 and 7.
        let fours: [__m128i; 8] = std::array::from_fn(|n| {
            let (four, quarter) = (n / 4 * 4, n % 4);
            let (one, other) = (twos[four + quarter / 2], twos[four + 2 + quarter / 2]);
            if quarter % 2 == 0 { _mm_unpacklo_epi32(one, other) } else { _mm_unpackhi_epi32(one, other) }
        });
        for pair in 0..8 {
            let (one, other) = (fours[pair / 2], fours[4 + pair / 2]);
            let eight =
                if pair % 2 == 0 { _mm_unpacklo_epi64(one, other) } else { _mm_unpackhi_epi64(one, other) };
            let place = &mut strip[(k / 2 + pair) * PAIR + half * CHANNELS..][..CHANNELS];
            // SAFETY: sixteen numbers of two bytes.
            unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), _mm256_cvtepi8_epi16(eight)) };
        }
    }
    whole
}
