//! Codes of 1 to 8 bits in a stream of bits ([`mod@crate::bitstream`]): read, multiplied with some rows in f32, made weights.

use super::dot_float::ROWS;
use super::float::Float;
use super::isa::Isa;

/// Codes that fill whole bytes, in any number of bits: as many bytes as these are.
const EIGHT: usize = 8;
/// Sums that are kept apart.
const LANES: usize = 16;

/// The codes of one output channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codes<'a> {
    /// The lowest bits first.
    pub(crate) words: &'a [i32],
    /// Of a code.
    pub(crate) bits: u32,
}

/// What the codes of an output channel stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups<'a> {
    /// Input channels of each.
    pub(crate) size: usize,
    /// [K / size].
    pub(crate) scales: &'a [f32],
    /// Their codes of zero, [K / size].
    pub(crate) zeros: &'a [u8],
}

impl Codes<'_> {
    /// The first of them, a byte each.
    pub(crate) fn read(self, codes: &mut [u8], isa: Isa) {
        // SAFETY: any words are bytes. (On processors whose lowest byte comes first, as all of libtorch's are.)
        let bytes =
            unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>(), size_of_val(self.words)) };
        let bits = self.bits as usize;
        assert!(codes.len() * bits <= 8 * bytes.len(), "there are as many codes");
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 && is_x86_feature_detected!("bmi2") {
            #[target_feature(enable = "bmi2")]
            fn deposited(bytes: &[u8], bits: usize, codes: &mut [u8]) {
                let mask = u64::from_le_bytes([mask(bits) as u8; EIGHT]);
                spread(bytes, bits, codes, |word| std::arch::x86_64::_pdep_u64(word, mask));
            }
            // SAFETY: the processor has the instruction.
            return unsafe { deposited(bytes, bits, codes) };
        }
        let _ = isa;
        spread(bytes, bits, codes, |word| {
            u64::from_le_bytes(std::array::from_fn(|code| (word >> (code * bits) & mask(bits)) as u8))
        });
    }
}

/// The lowest `bits` bits.
fn mask(bits: usize) -> u64 {
    (1 << bits) - 1
}

/// Eight codes of `bytes` after the others, each `word` with its own in the lowest bits being made one with a code a byte.
#[inline(always)]
fn spread(bytes: &[u8], bits: usize, codes: &mut [u8], eight: impl Fn(u64) -> u64) {
    for (index, codes) in codes.chunks_mut(EIGHT).enumerate() {
        let bytes = &bytes[index * bits..];
        let word = match bytes.first_chunk::<8>() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => {
                let mut last = [0; 8];
                last[..bytes.len()].copy_from_slice(bytes);
                u64::from_le_bytes(last)
            }
        };
        codes.copy_from_slice(&eight(word).to_le_bytes()[..codes.len()]);
    }
}

/// The products of `rows` (at most [`ROWS`], `[K]` each) with the weights of an output channel: codes of a group are multiplied and summed, and
/// sums are scaled.
pub(crate) fn products(rows: &[&[f32]], codes: &[u8], groups: Groups<'_>, isa: Isa) -> [f32; ROWS] {
    assert!(rows.len() <= ROWS && rows.iter().all(|row| row.len() == codes.len()));
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512(rows: &[&[f32]], codes: &[u8], groups: Groups<'_>) -> [f32; ROWS] {
            products_of(rows, codes, groups)
        }
        // SAFETY: `isa` says that the processor has the instructions.
        return unsafe { with_avx512(rows, codes, groups) };
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2(rows: &[&[f32]], codes: &[u8], groups: Groups<'_>) -> [f32; ROWS] {
            products_of(rows, codes, groups)
        }
        // SAFETY: likewise.
        return unsafe { with_avx2(rows, codes, groups) };
    }
    let _ = isa;
    products_of(rows, codes, groups)
}

#[inline(always)]
fn products_of(rows: &[&[f32]], codes: &[u8], groups: Groups<'_>) -> [f32; ROWS] {
    let mut found = [0.0; ROWS];
    let each = codes.chunks_exact(groups.size).zip(groups.scales).zip(groups.zeros);
    for (index, ((codes, scale), &zero)) in each.enumerate() {
        let (zero, (whole, rest)) = (f32::from(zero), codes.as_chunks::<LANES>());
        for (sum, row) in found.iter_mut().zip(rows) {
            let (x, last) = row[index * groups.size..][..groups.size].as_chunks::<LANES>();
            let mut sums = [0.0; LANES];
            for (x, codes) in x.iter().zip(whole) {
                for ((sum, x), &code) in sums.iter_mut().zip(x).zip(codes) {
                    *sum += x * (f32::from(code) - zero);
                }
            }
            for ((sum, x), &code) in sums.iter_mut().zip(last).zip(rest) {
                *sum += x * (f32::from(code) - zero);
            }
            *sum += scale * sums.iter().sum::<f32>();
        }
    }
    found
}

/// The weights of an output channel, `[K]`, rounded to the type `T` and held in the type `V`.
pub(crate) fn unpack<T: Float, V: Float>(codes: &[u8], groups: Groups<'_>, weights: &mut [V], isa: Isa) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512<T: Float, V: Float>(codes: &[u8], groups: Groups<'_>, weights: &mut [V]) {
            unpack_of::<T, V>(codes, groups, weights);
        }
        // SAFETY: `isa` says that the processor has the instructions.
        return unsafe { with_avx512::<T, V>(codes, groups, weights) };
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<T: Float, V: Float>(codes: &[u8], groups: Groups<'_>, weights: &mut [V]) {
            unpack_of::<T, V>(codes, groups, weights);
        }
        // SAFETY: likewise.
        return unsafe { with_avx2::<T, V>(codes, groups, weights) };
    }
    let _ = isa;
    unpack_of::<T, V>(codes, groups, weights);
}

#[inline(always)]
fn unpack_of<T: Float, V: Float>(codes: &[u8], groups: Groups<'_>, weights: &mut [V]) {
    let each = codes.chunks_exact(groups.size).zip(groups.scales).zip(groups.zeros);
    for (weights, ((codes, scale), &zero)) in weights.chunks_exact_mut(groups.size).zip(each) {
        for (weight, &code) in weights.iter_mut().zip(codes) {
            *weight = V::narrow(T::rounded((f32::from(code) - f32::from(zero)) * scale));
        }
    }
}
