//! What a kernel is.

use std::fmt::Debug;

use tch::{Device, Kind, Tensor};

use crate::cuda::Source;
use crate::input::Input;
use crate::weight::{KernelError, QuantizedWeight, Scheme};

/// What a kernel would have to do.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// How the weight is stored and multiplied.
    pub scheme: Scheme,
    /// N.
    pub out_features: i64,
    /// K.
    pub in_features: i64,
    /// Where.
    pub device: Device,
    /// The type of activations and outputs.
    pub kind: Kind,
}

impl Layer {
    /// Whether it computes in float32, bfloat16 or float16: what our own kernels know.
    pub(crate) fn is_in_float_or_half(&self) -> bool {
        matches!(self.kind, Kind::Float | Kind::BFloat16 | Kind::Half)
    }

    /// Weights that share a scale, where that is no whole output channel.
    pub(crate) fn group(&self) -> Option<i64> {
        self.scheme.group()
    }
}

/// A way to multiply by a quantized weight.
pub trait Kernel: Debug + Sync {
    /// Whether it can serve `layer`, of a scheme and on a device that its line in the table has, on this machine and at every number of
    /// rows: what of shapes, types and cards it does not know.
    fn supports(&self, _layer: &Layer) -> bool {
        true
    }

    /// What it compiles for CUDA, which tests compile where there is no card.
    fn sources(&self) -> &'static [&'static Source] {
        &[]
    }

    /// Brings `weight` into the kernel's own layout on `layer`'s device. Only called where it is supported; for the processor, with a weight
    /// that is there.
    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError>;
}

/// y = x Wᵀ + b with a weight in few bits.
pub trait PreparedLinear: Debug {
    /// `x` [..., K], of the type and in the place that it was prepared for, to [..., N] of the same type.
    fn forward(&self, x: &Tensor) -> Tensor;

    /// The same of activations that layers share. A kernel that quantizes them may normalize where it does, and finds what the layer
    /// before made of them.
    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        self.forward(input.tensor())
    }

    /// Bytes of all tensors that it holds: codes, scales and bias.
    fn bytes(&self) -> u64;
}

/// Bytes of the elements of all these.
pub(crate) fn bytes_of<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> u64 {
    tensors.into_iter().map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum()
}
