//! What the kernels for CPUs are made of.
//!
//! ```text
//! x, floating point ─► rows: int8 codes, a scale each ─► panel: codes as the processor multiplies them
//!                                                              │
//!             weight, int8 [N, K] ──────────────────────► dot: blocks of exact int32 sums ─► gemm ─► sink: scales, bias, y
//! ```
//!
//! [`Isa`] says which instructions are used. All of them give the same integers.

#[cfg(target_arch = "x86_64")]
pub(crate) mod blocks;
pub(crate) mod dot;
pub(crate) mod dot_float;
pub(crate) mod dot_nibbles;
pub(crate) mod float;
pub(crate) mod gemm;
mod isa;
pub(crate) mod nibbles;
#[cfg(target_arch = "x86_64")]
pub(crate) mod outer;
#[cfg(target_arch = "x86_64")]
pub(crate) mod outer_float;
pub(crate) mod panel;
pub(crate) mod rows;
pub(crate) mod shared;
pub(crate) mod threads;
pub(crate) mod view;
pub(crate) mod weight_only;

pub use isa::{Isa, UnknownIsa};
