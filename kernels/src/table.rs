//! The table of kernels, and the choice from it.

use std::fmt::Debug;

use tch::{Device, Kind, Tensor};

use crate::cuda::Source;
use crate::environment::wants_reference;
use crate::input::Input;
use crate::reordered::Reordered;
use crate::weight::{KernelError, QuantizedWeight, Scheme};
use crate::{int4, int8, llm_int8, nf4, reference, w4a8, w8a16, weight_only};

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

/// A way to multiply by a quantized weight.
pub trait Kernel: Debug + Sync {
    /// Its name, unique in the table.
    fn name(&self) -> &'static str;

    /// Whether it can serve `layer` on this machine, at every number of rows.
    fn supports(&self, layer: &Layer) -> bool;

    /// What it compiles for CUDA, which tests compile where there is no card.
    fn sources(&self) -> &'static [&'static Source] {
        &[]
    }

    /// Moves `weight` to `layer`'s device in the kernel's own layout. Only called where it is supported.
    fn prepare(&self, weight: QuantizedWeight, layer: &Layer)
    -> Result<Box<dyn PreparedLinear>, KernelError>;
}

/// y = x Wᵀ + b with a weight in few bits.
pub trait PreparedLinear: Debug {
    /// `x` [..., K] in the type it was prepared for, to [..., N] in the same type.
    fn forward(&self, x: &Tensor) -> Tensor;

    /// The same of activations that layers share. A kernel that quantizes them may normalize where it does, and finds what the layer
    /// before made of them.
    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        self.forward(input.tensor())
    }

    /// Bytes of all tensors that it holds: codes, scales and bias.
    fn bytes(&self) -> u64;
}

/// All kernels, best first. The last one supports everything.
pub static KERNELS: &[&dyn Kernel] = &[
    &int8::Fused,
    &int8::CudaFused,
    &int8::IntMm,
    &int4::Fused,
    &int4::CudaFused,
    &int4::PackedCuda,
    &int4::Tiles,
    &llm_int8::Fused,
    &llm_int8::CudaFused,
    &llm_int8::IntMm,
    &nf4::Fused,
    &nf4::CudaFused,
    &nf4::Tiles,
    &weight_only::Tiles,
    &w4a8::Fused,
    &w4a8::CudaFused,
    &w4a8::Progressive,
    &w4a8::Grouped,
    &w8a16::Fused,
    &w8a16::Int8Tiles,
    &reference::Reference,
];

/// The kernel that serves `layer`: the first that supports it, or the reference where the environment asks for it.
pub fn kernel_for(layer: &Layer) -> &'static dyn Kernel {
    let usable =
        |kernel: &&&dyn Kernel| (!wants_reference() || is_reference(**kernel)) && kernel.supports(layer);
    *KERNELS.iter().find(usable).expect("the reference supports every layer")
}

fn is_reference(kernel: &dyn Kernel) -> bool {
    kernel.name() == reference::NAME
}

/// Prepares `weight` for activations of type `kind` on `device`, with the best kernel for it.
pub fn prepare(
    weight: QuantizedWeight,
    device: Device,
    kind: Kind,
) -> Result<Box<dyn PreparedLinear>, KernelError> {
    let layer = Layer {
        scheme: weight.scheme(),
        out_features: weight.out_features(),
        in_features: weight.in_features(),
        device,
        kind,
    };
    let order = weight.input_order().map(|order| order.f_to_device(device)).transpose()?;
    let prepared = kernel_for(&layer).prepare(weight, &layer)?;
    Ok(match order {
        Some(order) => Box::new(Reordered { order, prepared }),
        None => prepared,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_reference_is_last() {
        let mut names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name()).collect();
        assert_eq!(names.last(), Some(&"reference"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KERNELS.len());
    }

    #[test]
    fn every_common_layer_has_a_kernel_better_than_the_reference() {
        for (scheme, kind) in [
            (Scheme::W8A8, Kind::Float),
            (Scheme::W8A8, Kind::BFloat16),
            (Scheme::W4A16 { group: 128 }, Kind::Float),
            (Scheme::W4A16 { group: 128 }, Kind::BFloat16),
            (Scheme::W4A16 { group: 128 }, Kind::Half),
            (Scheme::W4A16Asym { group: 128 }, Kind::BFloat16),
            (Scheme::WeightOnly { bits: 3, group: 128, asym: true }, Kind::BFloat16),
            (Scheme::WeightOnly { bits: 8, group: 256, asym: false }, Kind::Float),
            (Scheme::W8A8Static, Kind::BFloat16),
            (Scheme::W8A8Torchao, Kind::BFloat16),
            (Scheme::W8A16, Kind::Half),
            (Scheme::W4A8 { group: 128 }, Kind::BFloat16),
            (Scheme::W4A8Float { group: 128 }, Kind::BFloat16),
            (Scheme::LlmInt8, Kind::BFloat16),
            (Scheme::Nf4 { block: 64, nested: true }, Kind::BFloat16),
        ] {
            let layer = Layer { scheme, out_features: 256, in_features: 256, device: Device::Cpu, kind };
            assert_ne!(kernel_for(&layer).name(), "reference", "{layer:?}");
        }
    }
}
