//! W8A16: int8 weights with a scale an output channel, floating-point activations. What the matrices outside the blocks
//! are stored as: an output projection, or the embedding that serves as one.
//!
//! The weight in memory is the one that was handed over, unchanged: a tied embedding shares it.

pub(crate) mod fused;
pub(crate) mod tiles;
