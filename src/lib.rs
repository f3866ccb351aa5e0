//! qpipe: declares a quantization study in one YAML file and runs it, never computing twice what is known.
//!
//! ```text
//! cli ─► run ─► plan ─► pipeline ─► qpipe-nodes
//!          │      └────────────────► qpipe-cache
//!          └─► report, fetch
//! ```
//!
//! Tensors are the business of `qpipe-worker`, another program: this one never loads libtorch.

pub mod cli;
pub mod fetch;
pub mod pipeline;
pub mod plan;
pub mod report;
pub mod run;
