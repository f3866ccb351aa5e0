//! A slice that several threads write to.

use std::marker::PhantomData;

/// A slice of which each thread takes other parts.
#[derive(Debug)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: threads write to different parts, see `part`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Of a slice that nobody else uses meanwhile.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// `count` elements from `first` on.
    ///
    /// # Safety
    ///
    /// No element is in two parts that are used at one time.
    #[expect(clippy::mut_from_ref, reason = "parts are apart, as callers promise")]
    pub(crate) unsafe fn part(&self, first: usize, count: usize) -> &mut [T] {
        assert!(first <= self.length && count <= self.length - first, "a part lies within the slice");
        // SAFETY: it does, and is used by one thread alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), count) }
    }
}
