//! W8A8 on CUDA in two launches: rows become codes, codes are multiplied on tensor cores and scaled.

use tch::{Device, Kind, Tensor};

use super::launches::{CudaWeight, FEW, MANY, NORMALIZE, QUANTIZE, Quantizer, Scaling};
use super::matrix::fits_int32;
use super::wide::WIDE;
use crate::cpu::rows::Rule;
use crate::cuda::{self, Source};
use crate::input::Input;
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};

static SOURCES: &[&Source] = &[&QUANTIZE, &NORMALIZE, &FEW, &MANY, &WIDE];

/// See the module's documentation. K is filled up with zeros to a multiple of 16.
#[derive(Debug)]
pub(crate) struct CudaFused;

impl Kernel for CudaFused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half() && fits_int32(layer) && cuda::works(layer.device, self.sources())
    }

    fn sources(&self) -> &'static [&'static Source] {
        SOURCES
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        // Rounded to the activations' type first: that is what a checkpoint loaded in that type means.
        let rounded = |scale: &Tensor| scale.f_to_kind(layer.kind)?.f_to_kind(Kind::Float);
        let (codes, scale, rule) = match weight.codes() {
            Codes::Int8 { weight, scale } => (weight, rounded(scale)?, Rule::Dynamic),
            Codes::Int8Static { weight, scale, input_scale } => {
                let input_scale = rounded(input_scale)?.f_to_device(Device::Cpu)?.f_view([-1])?;
                (weight, rounded(scale)?, Rule::Static(f32::try_from(input_scale.f_get(0)?)?))
            }
            Codes::Int8Torchao { weight, scale } => (weight, scale.shallow_clone(), Rule::Torchao),
            _ => unreachable!("the table has it for W8A8 only"),
        };
        Ok(Box::new(PreparedCuda {
            weight: CudaWeight::new(codes, &scale, weight.bias(), layer.device, layer.kind)?,
            quantizer: Quantizer::new(rule, layer.device, layer.kind)?,
            scaling: if let Rule::Torchao = rule { Scaling::Rounded } else { Scaling::Plain },
            in_features: weight.in_features(),
        }))
    }
}

#[derive(Debug)]
struct PreparedCuda {
    weight: CudaWeight,
    quantizer: Quantizer,
    scaling: Scaling,
    /// K without padding.
    in_features: i64,
}

impl PreparedCuda {
    fn multiply(&self, input: &Input<'_>) -> Result<Tensor, KernelError> {
        let shape = input.output_size((self.weight.codes.size()[0], self.in_features));
        let rows = self.quantizer.of(input);
        Ok(self.weight.scaled(&rows, self.scaling)?.f_view(shape.as_slice())?)
    }
}

impl PreparedLinear for PreparedCuda {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_input(&Input::new(x))
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        self.multiply(input).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        let CudaWeight { codes, scale, bias, .. } = &self.weight;
        bytes_of([codes, scale].into_iter().chain(bias))
    }
}
