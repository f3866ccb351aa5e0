//! Products and unpacking of [`super`] with AVX-512 VBMI: a permutation brings to each word of eight bytes those that its codes lie in, and
//! a shift of its own for each byte brings a code to its lowest bits.

use std::arch::x86_64::*;

use half::bf16;

use super::super::few::{MOST_ROWS, pairs};
use super::super::isa::Isa;
use super::super::vectors::{loaded, rounded};
use super::{Codes, Groups, bytes_of};

/// Codes that become a vector of bfloat16.
const BF16_LANES: usize = pairs::VECTOR;
/// Codes that become a vector of f32.
const F32_LANES: usize = BF16_LANES / 2;
/// Codes that are read at once: in 1 to 8 bits they take as many times eight bytes.
const STEP: usize = 2 * BF16_LANES;
/// Codes of at most so many bits are looked up among 32 numbers, whatever comes after them in their lane.
const IN_TABLE: u32 = 5;

/// Whether the processor has it, and no vector is of two groups. (AMX comes with it on all processors so far, but is not asked about it.)
pub(super) fn serves(group: usize, isa: Isa) -> bool {
    isa >= Isa::Avx512Bf16 && group.is_multiple_of(BF16_LANES) && is_x86_feature_detected!("avx512vbmi")
}

/// See [`super::products`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn products<const M: usize>(
    rows: [&[f32]; M],
    codes: Codes<'_>,
    groups: Groups<'_>,
    found: &mut [f32; MOST_ROWS],
) {
    assert!(rows.iter().all(|row| row.len() >= groups.terms()));
    let mut totals = [_mm512_setzero_ps(); M];
    let cut = Cut::<4>::new(&F32_FIELDS, codes.bits);
    for (start, zero, scale) in groups.each() {
        let group = Group::new(codes.bits, zero, scale);
        let (mut even, mut odd) = ([_mm512_setzero_ps(); M], [_mm512_setzero_ps(); M]);
        let end = start + groups.size;
        for at in (start..end).step_by(STEP) {
            let bytes = loaded(codes.bytes_from(at));
            // SAFETY: rows are as long as was asserted.
            unsafe { add(&mut even, rows, at, group.numbers(cut.part(bytes, 0))) };
            // SAFETY: rows are as long as was asserted.
            unsafe { add(&mut odd, rows, at + F32_LANES, group.numbers(cut.part(bytes, 1))) };
            if at + BF16_LANES < end {
                // SAFETY: rows are as long as was asserted.
                unsafe { add(&mut even, rows, at + BF16_LANES, group.numbers(cut.part(bytes, 2))) };
                // SAFETY: rows are as long as was asserted.
                unsafe {
                    add(&mut odd, rows, at + BF16_LANES + F32_LANES, group.numbers(cut.part(bytes, 3)))
                };
            }
        }
        add_scaled(&mut totals, even, odd, group.scale);
    }
    for (found, total) in found.iter_mut().zip(totals) {
        *found = _mm512_reduce_add_ps(total);
    }
}

/// The same with activations in bfloat16, to which a code less its code of zero is an exact number.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512bf16")]
pub(super) fn paired_products<const M: usize>(
    rows: [&[bf16]; M],
    codes: Codes<'_>,
    groups: Groups<'_>,
    found: &mut [f32; MOST_ROWS],
) {
    let totals = match codes.bits {
        ..=IN_TABLE => paired_sums::<M, true>(rows, codes, groups),
        _ => paired_sums::<M, false>(rows, codes, groups),
    };
    for (found, total) in found.iter_mut().zip(totals) {
        *found = _mm512_reduce_add_ps(total);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512bf16")]
fn paired_sums<const M: usize, const LOOK_UP: bool>(
    rows: [&[bf16]; M],
    codes: Codes<'_>,
    groups: Groups<'_>,
) -> [__m512; M] {
    assert!(rows.iter().all(|row| row.len() >= groups.terms()));
    let mut totals = [_mm512_setzero_ps(); M];
    let cut = Cut::<2>::new(&BF16_FIELDS, codes.bits);
    for (start, zero, scale) in groups.each() {
        let group = Group::new(codes.bits, zero, scale);
        let table = if LOOK_UP { group.table() } else { _mm512_setzero_si512() };
        let weights = |lanes: __m512i| {
            if LOOK_UP { _mm512_permutexvar_epi16(lanes, table) } else { group.pairs(lanes) }
        };
        let (mut even, mut odd) = ([_mm512_setzero_ps(); M], [_mm512_setzero_ps(); M]);
        let end = start + groups.size;
        for at in (start..end).step_by(STEP) {
            let bytes = loaded(codes.bytes_from(at));
            // SAFETY: rows are as long as was asserted.
            unsafe { pairs::add(&mut even, rows, at, weights(cut.part(bytes, 0))) };
            if at + BF16_LANES < end {
                // SAFETY: likewise.
                unsafe { pairs::add(&mut odd, rows, at + BF16_LANES, weights(cut.part(bytes, 1))) };
            }
        }
        add_scaled(&mut totals, even, odd, group.scale);
    }
    totals
}

/// The weights of an output channel in f32: see [`super::unpack`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn unpack_f32(codes: Codes<'_>, groups: Groups<'_>, weights: &mut [f32]) {
    let cut = Cut::<4>::new(&F32_FIELDS, codes.bits);
    for (start, zero, scale) in groups.each() {
        let group = Group::new(codes.bits, zero, scale);
        for (step, weights) in weights[start..][..groups.size].chunks_mut(STEP).enumerate() {
            let bytes = loaded(codes.bytes_from(start + step * STEP));
            for (part, weights) in weights.as_chunks_mut::<F32_LANES>().0.iter_mut().enumerate() {
                let values = _mm512_mul_ps(group.numbers(cut.part(bytes, part)), group.scale);
                // SAFETY: sixteen numbers.
                unsafe { _mm512_storeu_ps(weights.as_mut_ptr(), values) };
            }
        }
    }
}

/// The same in bfloat16.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn unpack_bf16(codes: Codes<'_>, groups: Groups<'_>, weights: &mut [bf16]) {
    let (to_bf16, to_f32) = (Cut::<2>::new(&BF16_FIELDS, codes.bits), Cut::<4>::new(&F32_FIELDS, codes.bits));
    for (start, zero, scale) in groups.each() {
        let group = Group::new(codes.bits, zero, scale);
        let scaled = |[lower, upper]: [__m512; 2]| {
            let lower = rounded(_mm512_mul_ps(lower, group.scale));
            let upper = rounded(_mm512_mul_ps(upper, group.scale));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lower), upper)
        };
        let table = (codes.bits <= IN_TABLE).then(|| scaled(group.lower_and_upper()));
        for (step, weights) in weights[start..][..groups.size].chunks_mut(STEP).enumerate() {
            let bytes = loaded(codes.bytes_from(start + step * STEP));
            for (part, weights) in weights.as_chunks_mut::<BF16_LANES>().0.iter_mut().enumerate() {
                let values = match table {
                    Some(table) => _mm512_permutexvar_epi16(to_bf16.part(bytes, part), table),
                    None => scaled([
                        group.numbers(to_f32.part(bytes, 2 * part)),
                        group.numbers(to_f32.part(bytes, 2 * part + 1)),
                    ]),
                };
                // SAFETY: 32 numbers of two bytes.
                unsafe { _mm512_storeu_si512(weights.as_mut_ptr().cast(), values) };
            }
        }
    }
}

/// To the sums of `rows` the products of sixteen activations from `at` on.
///
/// # Safety
///
/// All rows have these activations.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add<const M: usize>(sums: &mut [__m512; M], rows: [&[f32]; M], at: usize, weights: __m512) {
    for (sum, row) in sums.iter_mut().zip(rows) {
        // SAFETY: the caller promises it.
        *sum = _mm512_fmadd_ps(unsafe { _mm512_loadu_ps(row.as_ptr().add(at)) }, weights, *sum);
    }
}

/// To `totals` both sums of a group times its scale.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_scaled<const M: usize>(totals: &mut [__m512; M], even: [__m512; M], odd: [__m512; M], scale: __m512) {
    for (total, (even, odd)) in totals.iter_mut().zip(even.into_iter().zip(odd)) {
        *total = _mm512_fmadd_ps(_mm512_add_ps(even, odd), scale, *total);
    }
}

/// What codes of a group stand for.
#[derive(Clone, Copy)]
struct Group {
    /// The bits of a code, of each lane of 32.
    code: __m512i,
    /// [`Group::MAGIC`] and the code of zero.
    zero: __m512,
    scale: __m512,
}

impl Group {
    /// 2^23, whose lowest bits as an f32 are those of a whole number that is added.
    const MAGIC: f32 = 8_388_608.0;

    /// With codes of so many bits.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(bits: u32, zero: u8, scale: f32) -> Self {
        Self {
            code: _mm512_set1_epi32((1 << bits) - 1),
            zero: _mm512_set1_ps(Self::MAGIC + f32::from(zero)),
            scale: _mm512_set1_ps(scale),
        }
    }

    /// Of the code in each lane's lowest bits, whatever is above them, the number, less the code of zero.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn numbers(self, lanes: __m512i) -> __m512 {
        // magic | (lanes & code)
        let magic = _mm512_castps_si512(_mm512_set1_ps(Self::MAGIC));
        let codes = _mm512_ternarylogic_epi32::<0xF8>(magic, lanes, self.code);
        _mm512_sub_ps(_mm512_castsi512_ps(codes), self.zero)
    }

    /// Of lanes of 16 bits, in bfloat16. A number of eight bits and a sign is exact in it: the upper half of the f32.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn pairs(self, lanes: __m512i) -> __m512i {
        let first = _mm512_castps_si512(self.numbers(lanes));
        let second = _mm512_castps_si512(self.numbers(_mm512_srli_epi32::<16>(lanes)));
        // The upper half of each.
        let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
        _mm512_ternarylogic_epi32::<0xCA>(upper, second, _mm512_srli_epi32::<16>(first))
    }

    /// Of the 32 numbers that five bits are.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn lower_and_upper(self) -> [__m512; 2] {
        let lower = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let upper = _mm512_add_epi32(lower, _mm512_set1_epi32(16));
        [self.numbers(lower), self.numbers(upper)]
    }

    /// The same in bfloat16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn table(self) -> __m512i {
        let [lower, upper] = self.lower_and_upper();
        pairs::joined(lower, upper)
    }
}

impl<'a> Codes<'a> {
    /// Those from the code `at` on, the first of a step.
    #[inline(always)]
    fn bytes_from(self, at: usize) -> &'a [u8] {
        &bytes_of(self.words)[at / 8 * self.bits as usize..]
    }
}

/// How codes of a number of bits come to lanes.
struct Fields {
    /// Which byte of the stream comes to each byte of a vector.
    places: [u8; 64],
    /// From which bit of its word on each byte is then taken.
    shifts: [u8; 64],
}

/// For lanes of two bytes, and codes of 1 to 8 bits.
static BF16_FIELDS: [Fields; 8] = fields(2);
/// For lanes of four.
static F32_FIELDS: [Fields; 8] = fields(4);

const fn fields(lane: usize) -> [Fields; 8] {
    let mut found = [const { Fields { places: [0; 64], shifts: [0; 64] } }; 8];
    let mut index = 0;
    while index < 64 {
        let (word, byte) = (index / 8, index % 8);
        let mut bits = 1;
        while bits <= 8 {
            let first = word * (8 / lane) * bits;
            found[bits - 1].places[index] = (first / 8 + byte) as u8;
            found[bits - 1].shifts[index] = (first % 8 + byte / lane * bits) as u8;
            bits += 1;
        }
        index += 1;
    }
    found
}

/// How a step's codes come to the lanes of this many vectors.
struct Cut<const PARTS: usize> {
    places: [__m512i; PARTS],
    shifts: __m512i,
}

impl<const PARTS: usize> Cut<PARTS> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new(fields: &[Fields; 8], bits: u32) -> Self {
        let Fields { places, shifts } = &fields[bits as usize - 1];
        // SAFETY: 64 bytes are read from 64, twice.
        let (first, shifts) = unsafe {
            (_mm512_loadu_si512(places.as_ptr().cast()), _mm512_loadu_si512(shifts.as_ptr().cast()))
        };
        let mut places = [first; PARTS];
        for (part, places) in places.iter_mut().enumerate() {
            let bytes = part * (STEP / PARTS / 8) * bits as usize;
            *places = _mm512_add_epi8(first, _mm512_set1_epi8(bytes as i8));
        }
        Self { places, shifts }
    }

    /// Of a step's `bytes` those of a part: the lowest bits of each lane are its code.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn part(&self, bytes: __m512i, part: usize) -> __m512i {
        _mm512_multishift_epi64_epi8(self.shifts, _mm512_permutexvar_epi8(self.places[part], bytes))
    }
}
