//! The table of node kinds that a worker runs.

use crate::context::{Context, Facts};
use crate::error::ActionError;

/// Runs one action to its artifact.
pub type Run = fn(&Context<'_>) -> Result<Facts, ActionError>;

/// Node kinds by name, as in [`qpipe_nodes::KINDS`].
pub static ACTIONS: &[(&str, Run)] = &[
    ("benchmark", crate::bench::run),
    ("calibrate", crate::calibrate::run),
    ("download", crate::model::random::run),
    ("evaluate", crate::eval::run),
    ("quantize", crate::quant::run),
    ("sft", crate::sft::run),
    ("sft-merge", crate::sft::merge::run),
];
