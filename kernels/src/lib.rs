//! Low-bit linear layers: one table of kernels, fastest first, a plain reference last. Beside them what goes around layers: norms, rotary embeddings,
//! gates, attention, products in floating point.
//!
//! ```text
//! QuantizedWeight (as a checkpoint stores it) ─► prepare ─► Box<dyn PreparedLinear> ─► forward(x)
//!                                                   │
//!                               KERNELS: the first that supports the Layer
//! ```
//!
//! A weight is data; a kernel is a line in [`KERNELS`]. Callers hand a weight to [`prepare`] and never choose.
//! To add a kernel: one file (and its `mod`) with a type that implements [`Kernel`], one line in the table. The parity test
//! (`tests/parity.rs`) then compares it with [`mod@reference`] on every scheme and shape that it supports.
//!
//! Weights stay in their few bits in memory: [`PreparedLinear::bytes`] counts them. A kernel keeps one copy.

mod activations;
pub mod affine;
pub mod attention;
pub mod bitstream;
mod cpu;
pub mod cuda;
mod cuda_rows;
pub mod decode;
pub mod environment;
mod few_rows;
mod gated;
pub mod gptq;
mod input;
pub mod int4;
pub mod int8;
mod kernel;
pub mod llm_int8;
pub mod nf4;
mod norm;
pub mod packing;
mod prepared;
mod product;
pub mod progressive;
pub mod random;
pub mod reference;
mod rotary;
pub mod speed;
pub mod symmetric;
mod table;
pub mod torchao;
pub mod w4a8;
pub mod w8a16;
mod weight;
pub mod weight_only;
mod wide4;

pub use cpu::{Isa, UnknownIsa};
pub use few_rows::FewRowsAlike;
pub use gated::silu_multiply;
pub use input::Input;
pub use kernel::{Kernel, Layer, PreparedLinear};
pub use norm::Norm;
pub use product::{Multiplier, Ordered, linear};
pub use rotary::rotate;
pub use table::{Entry, KERNELS, Place, kernel_for, prepare};
pub use weight::{Codes, Family, KernelError, QuantizedWeight, Scheme};
