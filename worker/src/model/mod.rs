//! Being written.
pub mod random;
