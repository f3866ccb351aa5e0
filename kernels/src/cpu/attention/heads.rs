//! Heads of tokens wherever they lie.

use std::marker::PhantomData;

use tch::{Device, TchError, Tensor};

use crate::cpu::view::Element;

/// [B, heads, T, D] on a CPU, the D numbers of a head of a token side by side.
#[derive(Debug)]
pub(super) struct Heads<'a, T> {
    start: *const T,
    size: [usize; 4],
    /// From a sequence, a head, and a token to the next.
    strides: [usize; 3],
    tensor: PhantomData<&'a Tensor>,
}

// SAFETY: nobody writes to a tensor that is borrowed.
unsafe impl<T: Sync> Sync for Heads<'_, T> {}

impl<'a, T: Element> Heads<'a, T> {
    /// Of a tensor whose last dimension has no gaps.
    pub(super) fn new(tensor: &'a Tensor) -> Result<Self, TchError> {
        assert!(tensor.kind() == T::KIND && tensor.device() == Device::Cpu);
        let (sequences, heads, tokens, width) = tensor.size4()?;
        let (of_sequence, of_head, of_token, of_number) = tensor.stride4()?;
        assert!(width > 0 && (of_number == 1 || width == 1), "the numbers of a head lie side by side");
        let start: *const T = tensor.data_ptr().cast_const().cast();
        assert!(start.is_aligned(), "a tensor begins within a number");
        Ok(Self {
            start,
            size: [sequences, heads, tokens, width].map(|size| size as usize),
            strides: [of_sequence, of_head, of_token].map(|stride| stride as usize),
            tensor: PhantomData,
        })
    }

    /// B, heads, T and D.
    pub(super) fn size(&self) -> [usize; 4] {
        self.size
    }

    /// D.
    pub(super) fn width(&self) -> usize {
        self.size[3]
    }

    /// The numbers of a sequence, a head, and a token.
    #[inline]
    pub(super) fn row(&self, place: [usize; 3]) -> &[T] {
        assert!(place.iter().zip(self.size).all(|(&place, size)| place < size));
        let offset: usize = place.iter().zip(self.strides).map(|(place, stride)| place * stride).sum();
        // SAFETY: an element of the tensor, which outlives the slice, and those after it in its last dimension.
        unsafe { std::slice::from_raw_parts(self.start.add(offset), self.size[3]) }
    }
}
