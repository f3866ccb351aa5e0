//! What `qpipe-worker kernels` prints: JSON lines, one a scheme.

use serde::{Deserialize, Serialize};

/// Which kernel serves a scheme on a device, and how fast it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelLine {
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// Of a CPU: the set of instructions that kernels use, by the name that QPIPE_CPU has for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Output and input features of the layer.
    pub shape: (u32, u32),
    /// How the weight is stored and multiplied; `bfloat16` for the dense layer that the others are compared with.
    pub scheme: String,
    /// The kernel's name.
    pub kernel: String,
    /// Seconds of one call, by rows of activations: [rows, median].
    pub seconds: Vec<(u32, f64)>,
}
