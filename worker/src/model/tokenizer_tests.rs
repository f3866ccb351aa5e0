//! Tests of `tokenizer.rs`.
