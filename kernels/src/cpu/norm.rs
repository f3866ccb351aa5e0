//! [`crate::Norm`] on a CPU, a row at a time.

use std::mem::MaybeUninit;
use std::ptr;

use tch::Tensor;

use super::float::{Float, for_kind};
use super::isa::{Isa, vectorized};
use super::shared::Shared;
use super::threads::{VALUES_ALONE, in_parts};
use super::view::{elements, elements_mut};
use crate::norm::Norm;

/// Sums that are taken side by side, whatever the instructions, so that all of them give the same bits.
const LANES: usize = 32;

/// A norm with a weight of the rows' type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowNorm<'a, T> {
    /// `[K]`.
    weight: &'a [T],
    epsilon: f32,
}

impl<'a, T: Float> RowNorm<'a, T> {
    /// Of a norm that [`Norm::is_in_rows`] of activations of this type.
    pub(crate) fn of(norm: &Norm<'a>) -> Self {
        Self { weight: elements(norm.weight), epsilon: norm.epsilon as f32 }
    }

    /// Writes all of `normal`, as many as `row` has values.
    pub(crate) fn of_row(&self, row: &[T], normal: &mut [MaybeUninit<T>], isa: Isa) {
        assert!(
            row.len() == self.weight.len() && row.len() == normal.len(),
            "rows are as wide as their norm"
        );
        normalize(row, self.weight, self.epsilon, normal, isa);
    }
}

/// `x` [..., K], which [`Norm::is_in_rows`] holds of, normalized.
pub(crate) fn normalized(x: &Tensor, norm: &Norm<'_>) -> Tensor {
    let x = x.contiguous();
    let mut normal = x.empty_like();
    for_kind!(x.kind(), normalize_all(&x, norm, &mut normal));
    normal
}

fn normalize_all<T: Float>(x: &Tensor, norm: &Norm<'_>, normal: &mut Tensor) {
    let (isa, norm) = (Isa::here(), RowNorm::<T>::of(norm));
    let (values, width) = (elements::<T>(x), norm.weight.len());
    let normal = elements_mut::<T>(normal);
    // SAFETY: what may be anything may be a number, too, and only numbers are written.
    let normal = Shared::new(unsafe { &mut *(ptr::from_mut(normal) as *mut [MaybeUninit<T>]) });
    in_parts(values.len() / width.max(1), 1, VALUES_ALONE / width.max(1), |rows| {
        for row in rows {
            // SAFETY: each row is given to one thread.
            let normal = unsafe { normal.part(row * width, width) };
            norm.of_row(&values[row * width..][..width], normal, isa);
        }
    });
}

vectorized!(
    normalize,
    normalize_plainly,
    (row: &[T], weight: &[T], epsilon: f32, normal: &mut [MaybeUninit<T>])
);

#[inline(always)]
fn normalize_plainly<T: Float>(row: &[T], weight: &[T], epsilon: f32, normal: &mut [MaybeUninit<T>]) {
    let factor = 1.0 / (mean_square(row) + epsilon).sqrt();
    for ((normal, value), weight) in normal.iter_mut().zip(row).zip(weight) {
        normal.write(T::narrow(weight.wide() * T::rounded(value.wide() * factor)));
    }
}

#[inline(always)]
fn mean_square<T: Float>(row: &[T]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for values in whole {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value.wide() * value.wide();
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += value.wide() * value.wide();
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for place in 0..width {
            sums[place] += sums[place + width];
        }
    }
    sums[0] / row.len() as f32
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn rows_are_those_of_libtorch() {
        tch::manual_seed(6);
        for (kind, tolerance) in [(Kind::Float, 1e-6), (Kind::BFloat16, 1.0 / 128.0)] {
            for shape in [[1, 1, 1], [2, 3, 33], [5, 7, 200]] {
                let x = Tensor::randn(shape, (kind, Device::Cpu)) * 3.0;
                let weight = Tensor::rand([shape[2]], (kind, Device::Cpu)) + 0.5;
                // Wants gradients, and so goes the other way.
                let followed = weight.copy().set_requires_grad(true);
                let expected = Norm { weight: &followed, epsilon: 1e-5 }.forward(&x);
                let found = Norm { weight: &weight, epsilon: 1e-5 }.forward(&x);
                assert!(expected.requires_grad() && !found.requires_grad());
                assert_eq!((found.size(), found.kind()), (expected.size(), kind));
                assert!(found.allclose(&expected, tolerance, 0.0, false), "{kind:?} {shape:?}");
                // Without the order of memory, too.
                let turned = x.transpose(0, 1).contiguous().transpose(0, 1);
                assert_eq!(Norm { weight: &weight, epsilon: 1e-5 }.forward(&turned), found);
            }
        }
    }

    #[test]
    fn instructions_change_no_bit() {
        let values: Vec<f32> = (0..1000_u16).map(|n| (f32::from(n) * 0.37).sin()).collect();
        let mut found: Vec<Vec<f32>> = Isa::all_of_this_machine()
            .map(|isa| {
                let mut normal = Box::new_uninit_slice(values.len());
                normalize(&values, &values, 1e-6, &mut normal, isa);
                // SAFETY: all were written.
                unsafe { normal.assume_init() }.into_vec()
            })
            .collect();
        found.dedup();
        assert_eq!(found.len(), 1);
        assert!(found.first().unwrap().iter().all(|value| value.is_finite()));
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let x = Tensor::from_slice(&[1.0_f32, f32::NAN, 2.0, f32::INFINITY, 3.0, 4.0]).view([3, 2]);
        let weight = Tensor::ones([2], (Kind::Float, Device::Cpu));
        let found = Norm { weight: &weight, epsilon: 1e-6 }.forward(&x);
        let followed = weight.copy().set_requires_grad(true);
        let expected = Norm { weight: &followed, epsilon: 1e-6 }.forward(&x);
        assert!(found.allclose(&expected.detach(), 1e-6, 0.0, true));
    }
}
