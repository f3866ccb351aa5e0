//! [`crate::rotate`] on a CPU, a head of a token at a time.

use tch::{Device, Tensor};

use super::float::{Float, for_kind};
use super::isa::{Isa, vectorized};
use super::threads::{VALUES_ALONE, in_parts};
use super::view::{Columns, elements};

/// `x` [B, T, heads, D], `cos` and `sin` [B or 1, 1, T, D/2], all of one type and without gaps on the CPU, to [B, heads, T, D].
pub(crate) fn rotated(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let size = x.size();
    // A row is a head of a sequence with all its tokens.
    let mut found = Tensor::empty([size[0] * size[2], size[1] * size[3]], (x.kind(), Device::Cpu));
    for_kind!(x.kind(), rotate_all(x, (cos, sin), &mut found));
    found.view([size[0], size[2], size[1], size[3]])
}

fn rotate_all<T: Float>(x: &Tensor, (cos, sin): (&Tensor, &Tensor), found: &mut Tensor) {
    let [_, tokens, heads, width] = x.size()[..] else { panic!("activations have four dimensions") };
    let (tokens, heads, width) = (tokens as usize, heads as usize, width as usize);
    let (values, cos, sin) = (elements::<T>(x), elements::<T>(cos), elements::<T>(sin));
    let half = width / 2;
    assert!(width == 2 * half && cos.len() == sin.len() && cos.len().is_multiple_of((tokens * half).max(1)));
    let (found, isa) = (Columns::<T>::new(found), Isa::here());
    let of_token = heads * width;
    in_parts(values.len() / of_token.max(1), 1, VALUES_ALONE / of_token.max(1), |range| {
        for index in range {
            let (sequence, token) = (index / tokens, index % tokens);
            // Where all sequences have the same positions, there is one of angles.
            let angles = index * half % cos.len();
            let (cos, sin) = (&cos[angles..][..half], &sin[angles..][..half]);
            for (head, x) in values[index * of_token..][..of_token].chunks_exact(width).enumerate() {
                // SAFETY: the output outlives the call, and each head of a token is given out once.
                let found = unsafe { found.part(sequence * heads + head, token * width, width) };
                rotate_pairs(x, cos, sin, found, isa);
            }
        }
    });
}

vectorized!(rotate_pairs, rotate_plainly, (x: &[T], cos: &[T], sin: &[T], found: &mut [T]));

/// Every product and every sum is rounded to the type, as libtorch's operations round them.
#[inline(always)]
fn rotate_plainly<T: Float>(x: &[T], cos: &[T], sin: &[T], found: &mut [T]) {
    let (first, second) = x.split_at(cos.len());
    let (found_first, found_second) = found.split_at_mut(cos.len());
    let product = |one: T, other: T| T::rounded(one.wide() * other.wide());
    for (place, (found_first, found_second)) in found_first.iter_mut().zip(found_second).enumerate() {
        let (first, second, cos, sin) = (first[place], second[place], cos[place], sin[place]);
        *found_first = T::narrow(product(first, cos) - product(second, sin));
        *found_second = T::narrow(product(second, cos) + product(first, sin));
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::rotate;

    #[test]
    fn pairs_are_rotated_as_libtorch_does_it() {
        tch::manual_seed(8);
        for kind in [Kind::Float, Kind::BFloat16] {
            for (shape, sequences) in [([1, 1, 1, 2], 1), ([3, 5, 4, 34], 3), ([2, 70, 3, 64], 1)] {
                let [_, tokens, _, width] = shape;
                let x = Tensor::randn(shape, (kind, Device::Cpu)).transpose(1, 2);
                let angles =
                    Tensor::randn([sequences, 1, tokens, width / 2], (Kind::Float, Device::Cpu)) * 9.0;
                let (cos, sin) = (angles.cos().to_kind(kind), angles.sin().to_kind(kind));
                let found = rotate(&x, &cos, &sin);
                // Where heads come first in memory, libtorch's operations are used.
                let expected = rotate(&x.contiguous(), &cos, &sin);
                assert_eq!(found, expected, "{kind:?} {shape:?}");
                let followed = rotate(&x.copy().set_requires_grad(true), &cos, &sin);
                assert!(followed.requires_grad() && followed.detach() == found, "{kind:?} {shape:?}");
            }
        }
    }
}
