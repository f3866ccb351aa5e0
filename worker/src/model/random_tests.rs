//! Tests of `random.rs`.
