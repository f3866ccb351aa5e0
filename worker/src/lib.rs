//! Runs one tensor node at a time on libtorch.
//!
//! ```text
//! serve ─► actions (the table) ─► sft  calibrate  quant  eval  bench ─► model ─► qpipe-kernels
//! ```
//!
//! Knows no YAML, no graph and no cache: an [`qpipe_nodes::protocol::Action`] arrives with resolved paths,
//! an artifact leaves in its scratch folder.

pub mod actions;
pub mod bench;
pub mod calibrate;
pub mod context;
pub mod data;
pub mod error;
pub mod eval;
mod finite;
pub mod kernels;
pub mod memory;
pub mod model;
pub mod quant;
pub mod serve;
pub mod sft;
pub mod torch;
