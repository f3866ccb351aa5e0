//! `resources:` of any node: how it is run, never what it computes. Only `threads` and `device` can
//! change bytes; they enter the key through the runtime part.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a node needs from the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPU threads of the worker. Default: half of the cores; `benchmark` takes all, and so does `sft` of a model of 64 MiB or more.
    #[serde(default)]
    pub threads: Option<u32>,
    /// `cpu` or `cuda`. Default: `cuda` where there is one.
    #[serde(default)]
    pub device: Option<DeviceKind>,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}
