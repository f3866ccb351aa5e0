//! What the kernels for CPUs are made of.
//!
//! ```text
//! x, floating point ─► rows: int8 codes, a scale each ─► panel: codes as the processor multiplies them
//!                                                              │
//!             weight, int8 [N, K] ──────────────────────► dot: blocks of exact int32 sums ─► gemm ─► sink: scales, bias, y
//! ```
//!
//! Many rows, and with VNNI any, meet strips of the weight instead, in the order of a unit that multiplies blocks: [`strips`], with outer products
//! on AVX2 ([`outer`]) and on AVX-512 VNNI ([`outer_vnni`]), and the tiles of [`amx`]. A weight that is int8 anyway lies in strips ([`matrix`]). Of weights that are unpacked to floating point: [`float_strips`],
//! with [`outer_float`] on AVX2 and [`outer_wide`] on AVX-512 BF16, which also multiplies by weights that are float32 anyway ([`dense`]).
//!
//! Few rows in floating point ([`few`]) meet a weight in few bits as it is packed: four bits in [`dot_float`], bytes in [`dot_bytes`], other
//! widths in [`dot_bits`]; rows that are codes meet four bits in [`dot_nibbles`].
//!
//! Beside weights: [`attention`], by [`outer_wide`]'s products, too, [`norm`]s and [`rotary`] embeddings.
//!
//! [`Isa`] says which instructions are used. All of them give the same integers.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
pub(crate) mod blocks;
#[cfg(target_arch = "x86_64")]
pub(crate) mod code_strips;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dense;
pub(crate) mod dot;
pub(crate) mod dot_bits;
pub(crate) mod dot_bytes;
pub(crate) mod dot_float;
pub(crate) mod dot_nibbles;
pub(crate) mod few;
pub(crate) mod float;
#[cfg(target_arch = "x86_64")]
pub(crate) mod float_strips;
#[cfg(target_arch = "x86_64")]
pub(crate) mod fours;
pub(crate) mod gemm;
pub(crate) mod isa;
pub(crate) mod matrix;
pub(crate) mod nibbles;
pub(crate) mod norm;
#[cfg(target_arch = "x86_64")]
pub(crate) mod outer;
#[cfg(target_arch = "x86_64")]
pub(crate) mod outer_float;
#[cfg(target_arch = "x86_64")]
pub(crate) mod outer_vnni;
#[cfg(target_arch = "x86_64")]
pub(crate) mod outer_wide;
pub(crate) mod panel;
pub(crate) mod rotary;
pub(crate) mod rows;
pub(crate) mod shared;
#[cfg(target_arch = "x86_64")]
pub(crate) mod strips;
pub(crate) mod threads;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vectors;
pub(crate) mod view;
pub(crate) mod weight_only;

pub use isa::{Isa, UnknownIsa};
