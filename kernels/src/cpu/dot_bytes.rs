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
    assert!(weights.len() == codes.len());
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

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::super::few::rows_at_once;
    use super::*;

    /// K: whole vectors, and what is left of them.
    const LENGTHS: [usize; 13] = [1, 13, 15, 16, 31, 32, 33, 63, 64, 65, 96, 100, 131];

    /// With the least and the greatest.
    fn codes(count: usize) -> Vec<i8> {
        (0..count).map(|place| [-128, 127, 0, -1, 5, 64, -77][place % 7]).collect()
    }

    fn compare<T: Float>(count: usize) {
        let codes = codes(count);
        let values: Vec<T> =
            (0..MOST_ROWS * count).map(|x| T::narrow(((x * x + x / 3) % 15) as f32 - 7.0)).collect();
        let product = |row: &[T]| row.iter().zip(&codes).map(|(x, &code)| x.wide() * f32::from(code)).sum();
        // Of whole numbers sums are exact in any order.
        let expected: Vec<f32> = values.chunks(count).map(product).collect();
        for isa in Isa::all_of_this_machine() {
            let rows: Vec<Row> =
                values.chunks(count).map(|values| Row::in_order(values, true, isa)).collect();
            for some in 1..=rows_at_once(T::KIND, true, isa) {
                let mut found = [f32::NAN; MOST_ROWS];
                products(&rows[..some], &codes, isa, &mut found);
                assert_eq!(found[..some], expected[..some], "{count} codes, {isa:?}");
            }
        }
    }

    #[test]
    fn all_instructions_give_the_same_sums() {
        for count in LENGTHS {
            compare::<f32>(count);
            compare::<bf16>(count);
            compare::<f16>(count);
        }
    }

    fn compare_weights<T: Float, V: Float>(count: usize, scale: f32) {
        let codes = codes(count);
        for isa in Isa::all_of_this_machine() {
            let mut found = vec![V::narrow(7.0); count];
            unpack::<T, V>(&codes, scale, &mut found, isa);
            for (found, &code) in found.iter().zip(&codes) {
                let expected = V::narrow(T::rounded(f32::from(code) * scale)).wide();
                let is_same = found.wide().to_bits() == expected.to_bits()
                    || found.wide().is_nan() && expected.is_nan();
                assert!(is_same, "{:e}, not {expected:e}: {count} codes, {isa:?}", found.wide());
            }
        }
    }

    #[test]
    fn all_instructions_give_the_same_weights() {
        for count in LENGTHS {
            for scale in [0.0137, -0.0123, 3e-41, f32::INFINITY, f32::NAN] {
                compare_weights::<f32, f32>(count, scale);
                compare_weights::<bf16, bf16>(count, scale);
                compare_weights::<bf16, f32>(count, scale);
                compare_weights::<f16, f32>(count, scale);
            }
        }
    }
}
