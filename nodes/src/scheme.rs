//! Names for ways of storing and multiplying quantized weights.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A preset, by the name that compressed-tensors gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scheme {
    /// int8 weights, one scale an output channel; int8 activations, one scale a token, computed at run time.
    W8A8,
    /// int4 weights, one scale a group of input channels; activations stay 16- or 32-bit.
    W4A16,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::W8A8 => "W8A8",
            Self::W4A16 => "W4A16",
        })
    }
}
