//! Products of many rows in floating point by outer products of AVX-512: of float32, and of pairs of bfloat16 (AVX-512 BF16).
//!
//! As in [`super::outer_vnni`], a vector holds a word of four bytes of each of sixteen output channels: a number in float32, or two in
//! bfloat16. `vdpbf16ps` adds both of their products to a sum in f32, one pair after the other, in the order of oneDNN's own
//! product.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use half::bf16;

use super::blocks::{Blocks, with_rows};
use super::float::Float;
use super::float_strips::{FloatBlocks, FloatSink};
use super::fours::{self, CHANNELS, Line, ROWS, Strip, TERMS};
use super::isa::Isa;
use super::strips::each_tile;

/// Words of a channel in a part of a strip.
const WORDS: usize = TERMS / 4;

/// Whether the unit is here and faster than libtorch: where there is AMX, that multiplies bfloat16 in tiles. Processors with AVX-512
/// but without BF16 are Intel's, for which libtorch's float32 was made.
pub(crate) fn is_best(isa: Isa) -> bool {
    isa == Isa::Avx512Bf16
}

/// A type that is multiplied in words.
pub(crate) trait Factor: Float + Default {
    /// So many parts of a strip, which has `parts` of them, make up a sum; then these are added, so that rounding grows with
    /// their number and not with that of all terms.
    fn parts_per_sum(parts: usize) -> usize;

    /// `sum` plus the products of sixteen words.
    ///
    /// # Safety
    ///
    /// The unit is here.
    unsafe fn add(sum: __m512, x: __m512i, weights: __m512i) -> __m512;
}

impl Factor for f32 {
    /// Of 512 input channels.
    fn parts_per_sum(_: usize) -> usize {
        512 / WORDS
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn add(sum: __m512, x: __m512i, weights: __m512i) -> __m512 {
        _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(weights), sum)
    }
}

impl Factor for bf16 {
    /// As the oneDNN of libtorch 2.11 does (found by trial).
    fn parts_per_sum(parts: usize) -> usize {
        const FEW: usize = 16;
        if parts > 2 * FEW { 2 * FEW } else { FEW }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn add(sum: __m512, x: __m512i, weights: __m512i) -> __m512 {
        // SAFETY: both types are 64 bytes, and any bits are numbers.
        let pairs = |words: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(words) };
        _mm512_dpbf16_ps(sum, pairs(x), pairs(weights))
    }
}

/// Many rows in words, each filled up with zeros to whole parts of a strip.
#[derive(Debug)]
pub(crate) struct Rows<T> {
    blocks: Blocks<i32, ROWS>,
    rows: usize,
    of: PhantomData<T>,
}

impl<T: Factor> Rows<T> {
    /// From `x` [M, K].
    ///
    /// # Safety
    ///
    /// The unit is here.
    pub(crate) unsafe fn new(x: &[T], in_features: usize) -> Self {
        // SAFETY: the caller promises it.
        let blocks = unsafe { fours::in_blocks(bytes_of(x), in_features * size_of::<T>(), 0) };
        Self { blocks, rows: x.len() / in_features.max(1), of: PhantomData }
    }
}

/// Numbers as bytes.
pub(crate) fn bytes_of<T: Factor>(numbers: &[T]) -> &[i8] {
    // SAFETY: numbers are bytes, and any bytes are codes.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// Sums of a block's rows and a strip's channels.
type Sums = [[f32; CHANNELS]; ROWS];

impl<T: Factor> FloatBlocks for Rows<T> {
    const CHANNELS: usize = CHANNELS;

    type Weight = T;

    type Strip = Strip;

    fn rows(&self) -> usize {
        self.rows
    }

    fn strip_bytes(in_features: usize) -> usize {
        fours::strip_bytes(in_features * size_of::<T>())
    }

    unsafe fn fill(strip: &mut Strip, weights: &[T]) {
        let width = size_of_val(weights) / CHANNELS;
        let channels: Vec<&[i8]> = bytes_of(weights).chunks_exact(width).collect();
        // SAFETY: the caller has AVX-512.
        unsafe { strip.fill(&channels, width) };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn multiply(&self, strips: &[Strip], first: usize, out_features: usize, sink: &impl FloatSink) {
        let blocks = self.blocks.iter().map(|(row, rows, words)| (row, rows, (rows, words)));
        let sums_of = |&(rows, words): &_, (_, strip): (_, &Strip), sums: &mut Sums| {
            with_rows!(T, rows, [1 2 3 4 5 6 7 8 9 10 11 12], sums_of(words, strip.all(), sums));
        };
        each_tile(blocks, strips, (first, out_features), sums_of, |row, first, sums| {
            sink.take(row, first, sums)
        });
    }
}

/// `x` [words, R], `lines` as a [`Strip`] has them.
#[target_feature(enable = "avx512f,avx512bf16")]
fn sums_of<T: Factor, const R: usize>(x: &[i32], lines: &[Line], found: &mut Sums) {
    assert_eq!(x.len() * CHANNELS, R * WORDS * lines.len(), "a block is as long as the strip");
    let apart = T::parts_per_sum(lines.len() / CHANNELS);
    let (first, rest) = lines.split_at(lines.len().min(apart * CHANNELS));
    let (x_first, x_rest) = x.split_at(x.len().min(apart * WORDS * R));
    store(found, part::<T, R>(x_first, first));
    for (x, lines) in x_rest.chunks(apart * WORDS * R).zip(rest.chunks(apart * CHANNELS)) {
        let mut sums = part::<T, R>(x, lines);
        for (found, sums) in found.iter().zip(&mut sums) {
            for (found, sum) in found.chunks_exact(16).zip(sums) {
                // SAFETY: sixteen numbers are 64 bytes.
                *sum = _mm512_add_ps(unsafe { _mm512_loadu_ps(found.as_ptr()) }, *sum);
            }
        }
        store(found, sums);
    }
}

/// The sums of a part: `x` [words, R], two lines a word.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn part<T: Factor, const R: usize>(x: &[i32], lines: &[Line]) -> [[__m512; 2]; R] {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    for (x, lines) in x.chunks_exact(R).zip(lines.chunks_exact(2)) {
        // SAFETY: a line is 64 bytes, and begins at a multiple of them.
        let weights = [0, 1].map(|half| unsafe { _mm512_load_si512(lines[half].0.as_ptr().cast()) });
        for (&x, sums) in x.iter().zip(&mut sums) {
            let x = _mm512_set1_epi32(x);
            for (sum, &weights) in sums.iter_mut().zip(&weights) {
                // SAFETY: the unit is here.
                *sum = unsafe { T::add(*sum, x, weights) };
            }
        }
    }
    sums
}

/// Writes the sums of a block's rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn store<const R: usize>(found: &mut Sums, sums: [[__m512; 2]; R]) {
    for (found, sums) in found.iter_mut().zip(sums) {
        for (found, sum) in found.chunks_exact_mut(16).zip(sums) {
            // SAFETY: sixteen numbers are 64 bytes.
            unsafe { _mm512_storeu_ps(found.as_mut_ptr(), sum) };
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::super::dense::Ready;
    use super::super::float_strips::multiply;
    use super::super::view::{Columns, elements};
    use super::*;

    struct Kept(Columns<bf16>);

    impl FloatSink for Kept {
        fn take(&self, row: usize, first: usize, sums: &[f32]) {
            // SAFETY: the output outlives the product, and each part is given out once.
            let y = unsafe { self.0.part(row, first, sums.len()) };
            y.iter_mut().zip(sums).for_each(|(y, &sum)| *y = bf16::from_f32(sum));
        }
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a test says what it could not try")]
    fn outputs_are_those_of_libtorch() {
        if !is_best(Isa::here()) {
            return eprintln!("skipped: this processor has no AVX-512 BF16, or multiplies bfloat16 in tiles");
        }
        tch::manual_seed(4);
        for (rows, out_features, in_features) in [(17, 33, 40), (130, 96, 1024), (25, 64, 2051), (12, 1, 7)] {
            let random =
                |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
            let (x, weight) = (random([rows, in_features]), random([out_features, in_features]));
            let mut y = Tensor::empty([rows, out_features], (Kind::BFloat16, Device::Cpu));
            let (sink, weights) = (Kept(Columns::new(&mut y)), elements::<bf16>(&weight));
            let shape = (out_features as usize, in_features as usize);
            // SAFETY: the unit is here.
            let of_rows = unsafe { Rows::new(elements(&x), shape.1) };
            // SAFETY: likewise.
            unsafe { multiply(&of_rows, &Ready::new(weights, shape), &sink) };
            let expected = x.matmul(&weight.tr());
            let differ = y.ne_tensor(&expected).sum(Kind::Int64).int64_value(&[]);
            // oneDNN may divide the sum of another shape, or on another processor, otherwise.
            assert!(
                differ * 1000 <= rows * out_features,
                "{rows} {out_features} {in_features}: {differ} differ"
            );
            assert!(y.allclose(&expected, 1.0 / 128.0, 1e-2, false));
        }
    }
}
