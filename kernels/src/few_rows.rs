//! Whether few rows are multiplied in a way of their own.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static ALIKE: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, layers with weights in few bits on this thread multiply few rows as they do many, on a CPU and in 16-bit types: weights are
/// rounded, as the reference rounds them. What comes out for a row does not depend on how many rows there are, nor, without a bias, on the instructions.
/// A single row takes about as long as sixteen.
#[derive(Debug)]
pub struct FewRowsAlike {
    before: bool,
    _this_thread: PhantomData<*const ()>,
}

impl FewRowsAlike {
    /// From now on.
    pub fn start() -> Self {
        Self { before: ALIKE.replace(true), _this_thread: PhantomData }
    }
}

impl Drop for FewRowsAlike {
    fn drop(&mut self) {
        ALIKE.set(self.before);
    }
}

/// Whether they are, here and now.
pub(crate) fn are_alike() -> bool {
    ALIKE.get()
}
