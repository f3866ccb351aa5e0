//! Tests of `save.rs`.
