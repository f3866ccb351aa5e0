//! Tensors as slices.

use std::ops::Range;

use half::{bf16, f16};
use tch::{Device, Kind, Tensor};

use super::float::Float;

/// A type of elements. (tch's own trait takes bfloat16 for float16.)
pub(crate) trait Element: Copy {
    /// What libtorch calls it.
    const KIND: Kind;
}

impl Element for u8 {
    const KIND: Kind = Kind::Uint8;
}

impl Element for i8 {
    const KIND: Kind = Kind::Int8;
}

impl Element for i32 {
    const KIND: Kind = Kind::Int;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;
}

impl Element for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

impl Element for f16 {
    const KIND: Kind = Kind::Half;
}

/// The elements of a tensor without gaps on the CPU, row by row.
pub(crate) fn elements<T: Element>(tensor: &Tensor) -> &[T] {
    assert!(tensor.kind() == T::KIND && tensor.device() == Device::Cpu && tensor.is_contiguous());
    if tensor.numel() == 0 {
        return &[];
    }
    let start: *const T = tensor.data_ptr().cast_const().cast();
    assert!(start.is_aligned(), "a tensor begins within a number");
    // SAFETY: the tensor has as many elements of this type side by side, and is borrowed as long as they are.
    unsafe { std::slice::from_raw_parts(start, tensor.numel()) }
}

/// `elements` as what they are, where that is `U`.
#[cfg(target_arch = "x86_64")]
pub(crate) fn same<T: Element, U: Element, const N: usize>(elements: &[T; N]) -> Option<&[U; N]> {
    // SAFETY: no two types are of one kind.
    (T::KIND == U::KIND).then(|| unsafe { &*elements.as_ptr().cast() })
}

/// Of any number of elements.
#[cfg(target_arch = "x86_64")]
pub(crate) fn same_all<T: Element, U: Element>(elements: &[T]) -> Option<&[U]> {
    // SAFETY: no two types are of one kind.
    (T::KIND == U::KIND)
        .then(|| unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), elements.len()) })
}

/// The same, to be written to.
#[cfg(target_arch = "x86_64")]
pub(crate) fn same_mut<T: Element, U: Element>(elements: &mut [T]) -> Option<&mut [U]> {
    let (start, count) = (elements.as_mut_ptr().cast(), elements.len());
    // SAFETY: no two types are of one kind.
    (T::KIND == U::KIND).then(|| unsafe { std::slice::from_raw_parts_mut(start, count) })
}

/// The elements of a tensor, to be written to. Nobody else may read or write its memory meanwhile.
pub(crate) fn elements_mut<T: Element>(tensor: &mut Tensor) -> &mut [T] {
    assert!(tensor.kind() == T::KIND && tensor.device() == Device::Cpu && tensor.is_contiguous());
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as above; it, or what it is a part of, was just made by the caller, as all callers do.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The elements of a floating-point tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Floats<'a> {
    Single(&'a [f32]),
    Brain(&'a [bf16]),
    Half(&'a [f16]),
}

impl<'a> Floats<'a> {
    /// Of a tensor without gaps on the CPU.
    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        match tensor.kind() {
            Kind::BFloat16 => Self::Brain(elements(tensor)),
            Kind::Half => Self::Half(elements(tensor)),
            _ => Self::Single(elements(tensor)),
        }
    }

    /// One of them.
    pub(crate) fn at(&self, index: usize) -> f32 {
        match self {
            Self::Single(values) => values[index],
            Self::Brain(values) => values[index].to_f32(),
            Self::Half(values) => values[index].to_f32(),
        }
    }

    /// Some of them, in place of what `into` holds.
    pub(crate) fn copy(&self, range: Range<usize>, into: &mut Vec<f32>) {
        into.clear();
        match self {
            Self::Single(values) => into.extend_from_slice(&values[range]),
            Self::Brain(values) => into.extend(values[range].iter().map(|value| value.wide())),
            Self::Half(values) => into.extend(values[range].iter().map(|value| value.to_f32())),
        }
    }
}

/// A matrix [M, N] that several threads write to, each its own columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<T> {
    start: *mut T,
    rows: usize,
    width: usize,
}

// SAFETY: threads write to different elements, see `write`.
unsafe impl<T: Send> Send for Columns<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Columns<T> {}

impl<T: Element> Columns<T> {
    /// Of a matrix that was just made, or some rows of one.
    pub(crate) fn new(matrix: &mut Tensor) -> Self {
        let width = *matrix.size().last().expect("a matrix has columns") as usize;
        let elements = elements_mut::<T>(matrix);
        Self { start: elements.as_mut_ptr(), rows: elements.len() / width.max(1), width }
    }

    /// Columns `first` to `first + count` of a row.
    ///
    /// # Safety
    ///
    /// The matrix lives, and no two parts that overlap are held at one time.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the parts apart")]
    pub(crate) unsafe fn part(&self, row: usize, first: usize, count: usize) -> &mut [T] {
        assert!(row < self.rows && first + count <= self.width);
        // SAFETY: within the matrix, and nobody else's, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width + first), count) }
    }
}
