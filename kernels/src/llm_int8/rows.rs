//! [`super::quantize_rows`] on a CPU, to the bit, in two passes over the activations: outliers first, then codes.

use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use half::f16;
use tch::Tensor;

use super::LEVELS;
use crate::cpu::float::{Float, for_kind};
use crate::cpu::isa::{Isa, vectorized};
use crate::cpu::panel::Panel;
use crate::cpu::rows::code_of;
use crate::cpu::shared::Shared;
use crate::cpu::threads::{VALUES_ALONE, in_parts};
use crate::cpu::view::elements;
use crate::input::Kept;

/// Rows [M, K] as codes.
#[derive(Debug)]
pub(crate) struct Rows {
    /// i8 [M, K], 0 in the columns that hold outliers.
    codes: Vec<i8>,
    /// `[M]`: x ≈ code · absmax / 127. NaN where a row has a NaN.
    pub(super) absmax: Vec<f32>,
    /// The columns that hold outliers, in their order.
    pub(super) outliers: Vec<i64>,
    /// K.
    width: usize,
    panels: Kept<Isa, Panel>,
}

impl Rows {
    /// Of `x` [..., K], without gaps on the CPU, rounded to f16. With a threshold of 0 nothing is an outlier.
    pub(crate) fn quantize(x: &Tensor, threshold: f64, isa: Isa) -> Self {
        for_kind!(x.kind(), quantize_all(x, threshold, isa))
    }

    /// The codes as the products of `isa` want them.
    pub(super) fn panel(&self, isa: Isa) -> Rc<Panel> {
        self.panels.get(isa, || Panel::new(&self.codes, self.width, isa))
    }
}

fn quantize_all<T: Float>(x: &Tensor, threshold: f64, isa: Isa) -> Rows {
    let width = *x.size().last().expect("activations have a last dimension") as usize;
    let x = elements::<T>(x);
    let count = x.len() / width.max(1);
    // As libtorch compares f16 with a number. Nothing is above a NaN.
    let threshold = if threshold > 0.0 { f16::from_f64(threshold).to_f32() } else { f32::NAN };
    let outliers = outliers(x, width, threshold, isa);
    let (mut codes, mut absmax) = (vec![0; x.len()], vec![0.0; count]);
    let (all_codes, all_absmax) = (Shared::new(&mut codes), Shared::new(&mut absmax));
    in_parts(count, 1, VALUES_ALONE / width.max(1), |range| {
        for row in range {
            // SAFETY: each row is given to one thread.
            let (codes, absmax) =
                unsafe { (all_codes.part(row * width, width), &mut all_absmax.part(row, 1)[0]) };
            *absmax = quantize_row(&x[row * width..][..width], threshold, codes, isa);
            for &column in &outliers {
                codes[column as usize] = 0;
            }
        }
    });
    Rows { codes, absmax, outliers, width, panels: Kept::default() }
}

/// The columns of `x` [M, K] in which a value is at least `threshold` in magnitude.
fn outliers<T: Float>(x: &[T], width: usize, threshold: f32, isa: Isa) -> Vec<i64> {
    if threshold.is_nan() {
        return Vec::new();
    }
    let found = Mutex::new(vec![0_u8; width]);
    in_parts(x.len() / width.max(1), 1, VALUES_ALONE / width.max(1), |range| {
        let mut columns = vec![0; width];
        for row in x[range.start * width..range.end * width].chunks_exact(width) {
            mark_outliers(row, threshold, &mut columns, isa);
        }
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter_mut().zip(&columns).for_each(|(found, here)| *found |= here);
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    (0..).zip(found).filter(|&(_, is_outlier)| is_outlier > 0).map(|(column, _)| column).collect()
}

vectorized!(mark_outliers, mark_plainly, (row: &[T], threshold: f32, columns: &mut [u8]));
vectorized!(quantize_row, quantize_plainly, (row: &[T], threshold: f32, codes: &mut [i8]) -> f32);

#[inline(always)]
fn mark_plainly<T: Float>(row: &[T], threshold: f32, columns: &mut [u8]) {
    for (column, value) in columns.iter_mut().zip(row) {
        *column |= u8::from(rounded_to_half(value.wide()).abs() >= threshold);
    }
}

/// The largest magnitude that is no outlier.
#[inline(always)]
fn quantize_plainly<T: Float>(row: &[T], threshold: f32, codes: &mut [i8]) -> f32 {
    let kept = |value: &T| {
        let value = rounded_to_half(value.wide());
        if value.abs() >= threshold { 0.0 } else { value }
    };
    // As integers, magnitudes are ordered alike, and NaN is above infinity.
    let largest = row.iter().fold(0, |most: u32, value| most.max(kept(value).to_bits() & 0x7FFF_FFFF));
    let absmax = f32::from_bits(largest);
    // Not 127 / absmax: see the definition.
    let factor = 1.0 / absmax * LEVELS as f32;
    for (code, value) in codes.iter_mut().zip(row) {
        // Zero times infinity, in a row of zeros, is no number, and its code 0.
        *code = code_of(kept(value) * factor);
    }
    absmax
}

/// The nearest f16, halves to the even one, without a branch, so that loops become vectors.
#[inline(always)]
fn rounded_to_half(value: f32) -> f32 {
    const LEAST_NORMAL: f32 = 1.0 / 16_384.0;
    const LARGEST: f32 = 65_504.0;
    // In [0.5, 1), numbers are as far from each other as f16's subnormal ones are.
    const SHIFT: f32 = 0.75;
    let bits = value.to_bits();
    let normal = f32::from_bits(bits.wrapping_add(0xFFF + ((bits >> 13) & 1)) & !0x1FFF);
    let small = (value + SHIFT) - SHIFT;
    let rounded = if value.abs() < LEAST_NORMAL { small } else { normal };
    let finite = if rounded.abs() > LARGEST { f32::INFINITY.copysign(value) } else { rounded };
    if value.is_nan() { value } else { finite }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::llm_int8::quantize_rows;

    #[test]
    fn halves_are_those_of_the_type() {
        let mut values: Vec<f32> = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32()).collect();
        // Between neighbours, and a little beside the middle.
        let between = values.windows(2).flat_map(|pair| {
            let middle = pair[0] / 2.0 + pair[1] / 2.0;
            [middle, middle * (1.0 + 1e-6), middle * (1.0 - 1e-6)]
        });
        values.extend(between.collect::<Vec<f32>>());
        values.extend([65_519.9, 65_520.0, -65_520.0, 1e30, 1e-30, -1e-9, f32::NEG_INFINITY]);
        for value in values {
            let (found, expected) = (rounded_to_half(value), f16::from_f32(value).to_f32());
            assert!(
                found == expected || found.is_nan() && expected.is_nan(),
                "{value:e}: {found:e} {expected:e}"
            );
        }
    }

    #[test]
    fn rows_are_those_of_the_definition() {
        let _guard = tch::no_grad_guard();
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let x = Tensor::randn([37, 83], (Kind::Float, Device::Cpu)) * 2.5;
            let _ = x.get(3).zero_();
            let _ = x.get(4).narrow(0, 7, 1).fill_(f64::NAN);
            x.narrow(0, 5, 2).copy_(&(x.narrow(0, 5, 2) * 1e-6));
            let x = x.to_kind(kind);
            for threshold in [0.0, 6.0, 2.9, 1000.0] {
                let expected = quantize_rows(&x, threshold).unwrap();
                let codes: Vec<i64> = Vec::try_from(expected.codes.to_kind(Kind::Int64).view([-1])).unwrap();
                let absmax: Vec<f32> = Vec::try_from(expected.absmax.view([-1])).unwrap();
                let outliers: Vec<i64> =
                    expected.outliers.map_or(Vec::new(), |columns| Vec::try_from(columns).unwrap());
                for isa in Isa::all_of_this_machine() {
                    let rows = Rows::quantize(&x, threshold, isa);
                    let found: Vec<i64> = rows.codes.iter().map(|&code| i64::from(code)).collect();
                    assert_eq!(rows.outliers, outliers, "{kind:?} {threshold} {isa:?}");
                    let is_equal =
                        |(one, other): (&f32, &f32)| one == other || one.is_nan() && other.is_nan();
                    assert!(rows.absmax.iter().zip(&absmax).all(is_equal), "{kind:?} {threshold} {isa:?}");
                    assert_eq!(found, codes, "{kind:?} {threshold} {isa:?}");
                }
            }
        }
    }
}
