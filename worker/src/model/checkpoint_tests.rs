//! Tests of `checkpoint.rs`.
