//! What `qpipe-worker kernels` prints: JSON lines, one a scheme.

use serde::{Deserialize, Serialize};

/// Which kernel serves a scheme on a device, and how fast it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelLine {
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// How the weight is stored and multiplied; `bfloat16` for the dense layer that the others are compared with.
    pub scheme: String,
    /// The kernel's name.
    pub kernel: String,
    /// Seconds of one call, by rows of activations: [rows, median].
    pub seconds: Vec<(u32, f64)>,
}
