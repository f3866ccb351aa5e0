//! Why a weight cannot be prepared.

use tch::{Device, Kind, TchError};

use crate::cuda::CudaError;

/// Why a weight cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The tensors contradict each other.
    #[error("{tensor} has type {found_kind:?} and shape {found:?}, expected {expected}")]
    Inconsistent {
        /// Its name: `weight`, `packed`, `scale`.
        tensor: &'static str,
        /// Its type.
        found_kind: Kind,
        /// Its shape.
        found: Vec<i64>,
        /// What fits.
        expected: String,
    },
    /// A block that does not fill bytes.
    #[error("a block of {block} weights is not a positive even number")]
    Block {
        /// Weights that share a scale.
        block: i64,
    },
    /// NF4 in a type that nothing multiplies it in.
    #[error("weights of NF4 are multiplied in float32, bfloat16 or float16, not in {found:?}")]
    Compute {
        /// The type.
        found: Kind,
    },
    /// No number of bits that codes have.
    #[error("weights have from 1 to 8 bits, not {bits}")]
    Bits {
        /// How many were asked for.
        bits: u32,
    },
    /// Codes that do not fit their bits.
    #[error("{tensor} has values from {least} to {most}, expected {lowest} to {highest}")]
    Range {
        /// Its name.
        tensor: &'static str,
        /// Its smallest value.
        least: i64,
        /// Its largest.
        most: i64,
        /// The smallest that fits.
        lowest: i64,
        /// The largest.
        highest: i64,
    },
    /// A weight that a processor cannot read.
    #[error("the weight is on {found:?}, and is to be multiplied on the processor")]
    Place {
        /// Where it is.
        found: Device,
    },
    /// A layer without channels.
    #[error("a layer of {out_features} output and {in_features} input channels has no weights")]
    Empty {
        /// N.
        out_features: i64,
        /// K.
        in_features: i64,
    },
    /// The group size does not divide the input channels.
    #[error("a group of {group} does not divide {in_features} input channels")]
    Group {
        /// Input channels that share a scale.
        group: i64,
        /// K.
        in_features: i64,
    },
    /// An order of input channels that leaves some out.
    #[error("the order of {in_features} input channels is no permutation of them")]
    Order {
        /// K.
        in_features: i64,
    },
    /// Integer scales and zeros of groups that take codes out of int8.
    #[error("{count} pairs of group_scale and group_zero take 4-bit codes out of the range of int8")]
    BeyondInt8 {
        /// How many.
        count: i64,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TchError),
    /// A kernel of our own on CUDA failed.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}
