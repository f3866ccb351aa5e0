//! Activations as int8 codes, a row at a time: the definitions of [`crate::symmetric`] and [`crate::torchao`], to the bit.

use std::mem::MaybeUninit;
use std::rc::Rc;

use tch::Tensor;

use super::float::{Float, for_kind};
use super::isa::{Isa, vectorized};
use super::norm::RowNorm;
use super::panel::Panel;
use super::shared::Shared;
use super::threads::{VALUES_ALONE, in_parts};
use super::view::elements;
use crate::input::Kept;
use crate::norm::Norm;

/// How activations become codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    /// A scale a row: see [`crate::symmetric`].
    Dynamic,
    /// This scale, a number of the activations' type, for all rows.
    Static(f32),
    /// A scale a row: see [`crate::torchao`].
    Torchao,
}

/// Rows [M, K] as codes.
#[derive(Debug)]
pub(crate) struct Rows {
    /// i8 [M, K].
    pub(crate) codes: Vec<i8>,
    /// `[M]`: x ≈ code · scale. NaN where a row has a value that is not finite.
    pub(crate) scales: Vec<f32>,
    /// K.
    width: usize,
    panels: Kept<Isa, Panel>,
}

impl Rows {
    /// Quantizes `x` [M, K], without gaps on the CPU, or what a norm makes of it that [`Norm::is_in_rows`] of it.
    pub(crate) fn quantize(x: &Tensor, norm: Option<&Norm<'_>>, rule: Rule, isa: Isa) -> Self {
        for_kind!(x.kind(), quantize_all(x, norm, rule, isa))
    }

    /// The codes as the products of `isa` want them.
    pub(crate) fn panel(&self, isa: Isa) -> Rc<Panel> {
        self.panels.get(isa, || Panel::new(&self.codes, self.width, isa))
    }
}

fn quantize_all<T: Float>(x: &Tensor, norm: Option<&Norm<'_>>, rule: Rule, isa: Isa) -> Rows {
    let (values, norm) = (elements::<T>(x), norm.map(RowNorm::<T>::of));
    let width = *x.size().last().expect("activations have a last dimension") as usize;
    let count = values.len() / width.max(1);
    // Not filled with zeros before: that would be one thread's work.
    let mut all_codes = Box::new_uninit_slice(values.len());
    let mut all_scales = vec![0.0; count];
    let (codes, scales) = (Shared::new(&mut all_codes), Shared::new(&mut all_scales));
    in_parts(count, 1, VALUES_ALONE / width.max(1), |range| {
        let mut normal = norm.map(|norm| (norm, Box::new_uninit_slice(width)));
        for index in range {
            // SAFETY: each row is given to one thread.
            let (codes, scale) = unsafe { (codes.part(index * width, width), &mut scales.part(index, 1)[0]) };
            let mut row = &values[index * width..][..width];
            if let Some((norm, normal)) = &mut normal {
                norm.of_row(row, normal, isa);
                // SAFETY: it writes all values of a row.
                row = unsafe { normal.assume_init_ref() };
            }
            *scale = quantize_row(row, rule, codes, isa);
        }
    });
    // SAFETY: `quantize_row` writes all codes of a row, and rows are all that there is.
    let codes = unsafe { all_codes.assume_init() }.into_vec();
    Rows { codes, scales: all_scales, width, panels: Kept::default() }
}

// Writes all `codes`, as many as `x` has values.
vectorized!(quantize_row, quantize_values, (x: &[T], rule: Rule, codes: &mut [MaybeUninit<i8>]) -> f32);

#[inline(always)]
fn quantize_values<T: Float>(x: &[T], rule: Rule, codes: &mut [MaybeUninit<i8>]) -> f32 {
    if let Rule::Static(scale) = rule {
        for (code, value) in codes.iter_mut().zip(x) {
            code.write(code_of(T::rounded(value.wide() / scale)));
        }
        return scale;
    }
    // As integers, magnitudes are ordered alike, and NaN is above infinity.
    let largest = x.iter().fold(0_u32, |most, value| most.max(value.wide().to_bits() & 0x7FFF_FFFF));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        codes.fill(MaybeUninit::new(0));
        return f32::NAN;
    }
    let scale = T::rounded(largest / 127.5);
    if let Rule::Torchao = rule {
        let scale = scale.max(f32::EPSILON);
        let factor = 1.0 / scale;
        for (code, value) in codes.iter_mut().zip(x) {
            code.write(code_of_number(value.wide() * factor));
        }
        return scale;
    }
    let scale = if scale == 0.0 { T::EPSILON } else { scale };
    for (code, value) in codes.iter_mut().zip(x) {
        code.write(code_of_number(T::number_rounded(value.wide() / scale)));
    }
    scale
}

/// Rounds half to even, to a code. NaN becomes 0, as libtorch has it.
#[inline(always)]
pub(crate) fn code_of(scaled: f32) -> i8 {
    code_of_number(if scaled.is_nan() { 0.0 } else { scaled })
}

/// The same of what is not NaN. The order of rounding and clamping makes no difference: the bounds are whole numbers.
#[inline(always)]
fn code_of_number(scaled: f32) -> i8 {
    // Adding 1.5 · 2^23 leaves no room for a fraction; the sum is rounded half to even, and its low bits are the integer.
    const SHIFT: f32 = 12_582_912.0;
    (scaled.clamp(-128.0, 127.0) + SHIFT).to_bits() as i8
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::{symmetric, torchao};

    fn codes(rows: &Rows) -> Vec<i64> {
        rows.codes.iter().map(|&code| i64::from(code)).collect()
    }

    fn integers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.to_kind(Kind::Int64).view([-1])).unwrap()
    }

    #[test]
    fn codes_and_scales_are_those_of_the_definitions() {
        let _guard = tch::no_grad_guard();
        tch::manual_seed(3);
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let x = Tensor::randn([40, 77], (Kind::Float, Device::Cpu)) * 3.0;
            // Halves, a row of zeros, the smallest numbers, and single peaks on either side.
            x.narrow(0, 0, 8).copy_(&((x.narrow(0, 0, 8) * 4.0).round() / 8.0));
            let _ = x.get(8).zero_();
            x.narrow(0, 9, 2).copy_(&(x.narrow(0, 9, 2) * 1e-7));
            let _ = x.narrow(0, 11, 1).narrow(1, 5, 1).fill_(-60.0);
            let _ = x.narrow(0, 12, 1).narrow(1, 5, 1).fill_(60.0);
            let x = x.to_kind(kind);
            for isa in Isa::all_of_this_machine() {
                let scale = symmetric::scales(&x, 8);
                let rows = Rows::quantize(&x, None, Rule::Dynamic, isa);
                assert_eq!(codes(&rows), integers(&symmetric::codes(&x, &scale, 8)), "{kind:?} {isa:?}");
                let expected = Vec::<f32>::try_from(scale.to_kind(Kind::Float).view([-1])).unwrap();
                assert_eq!(rows.scales, expected);

                let scale = torchao::scales(&x).unwrap();
                let rows = Rows::quantize(&x, None, Rule::Torchao, isa);
                assert_eq!(codes(&rows), integers(&torchao::codes(&x, &scale).unwrap()), "{kind:?} {isa:?}");
                assert_eq!(rows.scales, Vec::<f32>::try_from(scale.view([-1])).unwrap());

                let scale = Tensor::full([1], 0.031, (kind, Device::Cpu));
                let wide = scale.double_value(&[0]) as f32;
                let rows = Rows::quantize(&x, None, Rule::Static(wide), isa);
                assert_eq!(codes(&rows), integers(&symmetric::codes(&x, &scale, 8)), "{kind:?} {isa:?}");
            }
        }
    }

    #[test]
    fn a_row_with_a_value_that_is_not_finite_has_no_scale() {
        let x = Tensor::from_slice(&[1.0_f32, f32::NAN, 2.0, f32::INFINITY, 3.0, 4.0]).view([3, 2]);
        for rule in [Rule::Dynamic, Rule::Torchao] {
            let rows = Rows::quantize(&x, None, rule, Isa::here());
            assert!(rows.scales[0].is_nan() && rows.scales[1].is_nan() && rows.scales[2] > 0.0);
        }
    }
}
