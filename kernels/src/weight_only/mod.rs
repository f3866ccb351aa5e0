//! Weights of 1 to 8 bits in groups, with zero points or without, floating-point activations: what GPTQ makes of 2 and 3 bits. For 4 bits there is
//! [`crate::int4`], for 8 with a scale an output channel [`crate::w8a16`].

pub(crate) mod fused;
pub(crate) mod tiles;
