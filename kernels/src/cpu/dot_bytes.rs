//! Products of some rows with output channels of int8 codes that have one scale, and the weights that these stand for.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
use tch::Kind;

#[cfg(target_arch = "x86_64")]
use super::few::with_rows;
use super::few::{MOST_ROWS, Row};
use super::float::Float;
use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::view::same_mut;

/// The products of `rows` (at most [`super::few::rows_at_once`], of one type, in their own order) with `codes` `[K]`, not scaled, to
/// `found`. Codes are multiplied as they are: none is rounded in bfloat16.
pub(crate) fn products(rows: &[Row], codes: &[i8], isa: Isa, found: &mut [f32; MOST_ROWS]) {
    assert!(rows.iter().all(|row| row.len() >= codes.len()));
    #[cfg(target_arch = "x86_64")]
    if let [Row::Pairs(_), ..] = rows {
        // SAFETY: such rows are made where `isa` says that the processor has AVX-512, and it has BF16 besides.
        return unsafe { with_rows!(8: rows, Row::pairs, |rows| avx512::products(rows, codes, found)) };
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        // SAFETY: `isa` says that the processor has AVX2 and FMA.
        return unsafe { with_rows!(4: rows, Row::floats, |rows| avx2::products(rows, codes, found)) };
    }
    let _ = isa;
    for (sum, row) in found.iter_mut().zip(rows) {
        *sum = row.floats().iter().zip(codes).map(|(x, &code)| x * f32::from(code)).sum();
    }
}

/// The weights of `codes`, rounded to the type `T` and held in the type `V`.
pub(crate) fn unpack<T: Float, V: Float>(codes: &[i8], scale: f32, weights: &mut [V], isa: Isa) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512
        && T::KIND == Kind::BFloat16
        && let Some(weights) = same_mut(weights)
    {
        // SAFETY: `isa` says that the processor has AVX-512.
        return unsafe { avx512::unpack(codes, scale, weights) };
    }
    #[inline(always)]
    fn plain<T: Float, V: Float>(codes: &[i8], scale: f32, weights: &mut [V]) {
        for (weight, &code) in weights.iter_mut().zip(codes) {
            *weight = V::narrow(T::rounded(f32::from(code) * scale));
        }
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<T: Float, V: Float>(codes: &[i8], scale: f32, weights: &mut [V]) {
            plain::<T, V>(codes, scale, weights);
        }
        // SAFETY: `isa` says that the processor has AVX2 and FMA.
        return unsafe { with_avx2::<T, V>(codes, scale, weights) };
    }
    let _ = isa;
    plain::<T, V>(codes, scale, weights);
}
