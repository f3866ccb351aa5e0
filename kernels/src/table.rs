//! The table of kernels, and the choice from it.

use tch::{Device, Kind};

use crate::environment::wants_reference;
use crate::kernel::{Kernel, Layer, PreparedLinear};
use crate::prepared::Prepared;
use crate::weight::{Family, KernelError, QuantizedWeight};
use crate::{int4, int8, llm_int8, nf4, reference, w4a8, w8a16, weight_only};

use Family::{LlmInt8, Nf4, W4A8, W4A8Float, W4A16, W8A8, W8A16, WeightOnly};
use Place::{Anywhere, Cpu, Cuda};

/// All kernels, those of a scheme best first. The last one serves everything.
pub static KERNELS: &[Entry] = &[
    entry("w8a8-cpu-fused", &[W8A8], Cpu, &int8::fused::Fused),
    entry("w8a8-cuda-fused", &[W8A8], Cuda, &int8::cuda::CudaFused),
    entry("w8a8-int-mm", &[W8A8], Anywhere, &int8::int_mm::IntMm),
    //
    entry("llm-int8-cpu-fused", &[LlmInt8], Cpu, &llm_int8::fused::Fused),
    entry("llm-int8-cuda-fused", &[LlmInt8], Cuda, &llm_int8::cuda::CudaFused),
    entry("llm-int8-int-mm", &[LlmInt8], Anywhere, &llm_int8::int_mm::IntMm),
    //
    entry("w4a8-cpu-fused", &[W4A8, W4A8Float], Cpu, &w4a8::fused::Fused),
    entry("w4a8-cuda-fused", &[W4A8, W4A8Float], Cuda, &w4a8::cuda::CudaFused),
    entry("w4a8-progressive-tiles", &[W4A8], Anywhere, &w4a8::progressive::Progressive),
    entry("w4a8-grouped-tiles", &[W4A8Float], Anywhere, &w4a8::grouped::Grouped),
    //
    entry("w4a16-cpu-fused", &[W4A16], Cpu, &int4::fused::Fused),
    entry("w4a16-cuda-fused", &[W4A16], Cuda, &int4::cuda_fused::CudaFused),
    entry("w4a16-int4pack-cuda", &[W4A16], Cuda, &int4::cuda::PackedCuda),
    entry("w4a16-tiles", &[W4A16], Anywhere, &int4::tiles::Tiles),
    //
    entry("nf4-cpu-fused", &[Nf4], Cpu, &nf4::fused::Fused),
    entry("nf4-cuda-fused", &[Nf4], Cuda, &nf4::cuda::CudaFused),
    entry("nf4-tiles", &[Nf4], Anywhere, &nf4::tiles::Tiles),
    //
    entry("w8a16-cpu-fused", &[W8A16], Cpu, &w8a16::fused::Fused),
    entry("w8a16-tiles", &[W8A16], Anywhere, &w8a16::tiles::Tiles),
    //
    entry("weight-only-cpu-fused", &[WeightOnly], Cpu, &weight_only::fused::Fused),
    entry("weight-only-tiles", &[WeightOnly], Anywhere, &weight_only::tiles::Tiles),
    //
    entry(REFERENCE, ALL, Anywhere, &reference::Reference),
];

const REFERENCE: &str = "reference";
const ALL: &[Family] = &[W8A8, W8A16, LlmInt8, W4A16, W4A8, W4A8Float, Nf4, WeightOnly];

/// A line of the table.
#[derive(Debug)]
pub struct Entry {
    /// Unique in the table.
    pub name: &'static str,
    /// Whose weights it multiplies by.
    pub families: &'static [Family],
    /// Where it runs.
    pub place: Place,
    /// It.
    pub kernel: &'static dyn Kernel,
}

/// A class of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The processor.
    Cpu,
    /// NVIDIA's cards.
    Cuda,
    /// Wherever libtorch runs.
    Anywhere,
}

const fn entry(
    name: &'static str,
    families: &'static [Family],
    place: Place,
    kernel: &'static dyn Kernel,
) -> Entry {
    Entry { name, families, place, kernel }
}

impl Place {
    /// Whether `device` is of this class.
    pub fn has(self, device: Device) -> bool {
        match self {
            Self::Cpu => device == Device::Cpu,
            Self::Cuda => device.is_cuda(),
            Self::Anywhere => true,
        }
    }
}

impl Entry {
    /// Whether it can serve `layer` on this machine.
    pub fn supports(&self, layer: &Layer) -> bool {
        self.families.contains(&layer.scheme.family())
            && self.place.has(layer.device)
            && self.kernel.supports(layer)
    }

    /// Brings `weight` into this kernel's layout on `layer`'s device, `layer` being one that it supports. The result panics if it is given
    /// activations of another width, type or device than `layer`'s.
    ///
    /// # Errors
    ///
    /// libtorch's and those of CUDA; a weight that is on a card, for a layer on the processor.
    pub fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        if layer.device == Device::Cpu && weight.device() != Device::Cpu {
            return Err(KernelError::Place { found: weight.device() });
        }
        let order = weight.input_order().map(|order| order.f_to_device(layer.device)).transpose()?;
        Ok(Box::new(Prepared { layer: *layer, order, kernel: self.kernel.prepare(weight, layer)? }))
    }
}

/// The line that serves `layer`: the first that supports it, or the reference where the environment asks for it.
pub fn kernel_for(layer: &Layer) -> &'static Entry {
    let usable = |entry: &&Entry| (!wants_reference() || entry.name == REFERENCE) && entry.supports(layer);
    KERNELS.iter().find(usable).expect("the reference supports every layer")
}

/// Prepares `weight` for activations of type `kind` on `device`, with the best kernel for it: see [`Entry::prepare`].
///
/// # Errors
///
/// Those of [`Entry::prepare`].
pub fn prepare(
    weight: &QuantizedWeight,
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
    kernel_for(&layer).prepare(weight, &layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weight::Scheme;

    #[test]
    fn names_are_unique_and_the_reference_is_last() {
        let mut names: Vec<_> = KERNELS.iter().map(|entry| entry.name).collect();
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
            assert_ne!(kernel_for(&layer).name, "reference", "{layer:?}");
        }
    }
}
