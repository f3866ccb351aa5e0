//! W8A8 through libtorch's `_int_mm`: int8 by int8 to int32, exact, at every number of rows.

use tch::{Device, Kind, TchError, Tensor};

use crate::activations::{Activations, Int8Rows};
use crate::table::{Kernel, Layer, PreparedLinear};
use crate::weight::{Codes, KernelError, QuantizedWeight, Scheme, bytes_of};

/// On CUDA, K and N must be multiples of this.
const CUDA_ALIGNMENT: i64 = 8;
/// On a CPU, `_int_mm` of libtorch 2.11 reads past the end where K is 1.
const CPU_LEAST_IN_FEATURES: i64 = 2;

/// Activations are quantized (see [`crate::symmetric`] and [`crate::torchao`]) with a scale a token, or one found
/// beforehand, multiplied as integers, and the sums are scaled in f32 by the activation's and the output channel's
/// scale.
#[derive(Debug)]
pub struct IntMm;

impl Kernel for IntMm {
    fn name(&self) -> &'static str {
        "w8a8-int-mm"
    }

    fn supports(&self, layer: &Layer) -> bool {
        matches!(layer.scheme, Scheme::W8A8 | Scheme::W8A8Static | Scheme::W8A8Torchao)
            && matches!(layer.device, Device::Cpu | Device::Cuda(_))
    }

    fn prepare(
        &self,
        weight: QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        // Rounded to the activations' type first: that is what a checkpoint loaded in that type means.
        let rounded = |scale: &Tensor| scale.f_to_device_(layer.device, layer.kind, false, false);
        let (codes, scale, activations) = match weight.codes() {
            Codes::Int8 { weight, scale } => (weight, rounded(scale)?, Activations::Dynamic),
            Codes::Int8Static { weight, scale, input_scale } => {
                (weight, rounded(scale)?, Activations::Static(rounded(input_scale)?))
            }
            Codes::Int8Torchao { weight, scale } => {
                (weight, scale.f_to_device(layer.device)?, Activations::Torchao)
            }
            _ => unreachable!("supports() admits W8A8 only"),
        };
        let (out_features, in_features) = (weight.out_features(), weight.in_features());
        let mut codes = codes.f_to_device(layer.device)?;
        let (out_padding, in_padding) = if layer.device.is_cuda() {
            ((-out_features).rem_euclid(CUDA_ALIGNMENT), (-in_features).rem_euclid(CUDA_ALIGNMENT))
        } else {
            (0, (CPU_LEAST_IN_FEATURES - in_features).max(0))
        };
        if out_padding + in_padding > 0 {
            codes = codes.f_constant_pad_nd([0, in_padding, 0, out_padding])?;
        }
        let bias = weight
            .bias()
            .map(|bias| bias.f_to_device_(layer.device, Kind::Float, false, true))
            .transpose()?;
        Ok(Box::new(PreparedIntMm {
            activations,
            weight: codes.f_contiguous()?,
            scale: scale.f_to_kind(Kind::Float)?.f_view([-1])?,
            bias,
            in_padding,
            out_features,
        }))
    }
}

#[derive(Debug)]
struct PreparedIntMm {
    /// i8 [N, K], both padded with zeros where the device asks for it.
    weight: Tensor,
    /// f32 `[N]`.
    scale: Tensor,
    activations: Activations,
    /// f32 `[N]`.
    bias: Option<Tensor>,
    in_padding: i64,
    /// N without padding.
    out_features: i64,
}

impl PreparedIntMm {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let rows = Int8Rows::quantize(x, &self.activations)?;
        let codes = if self.in_padding > 0 {
            rows.codes.f_constant_pad_nd([0, self.in_padding])?
        } else {
            rows.codes.shallow_clone()
        };
        // The transposed view is the layout that both backends want; a transposed copy is slower.
        let sums = codes.f_internal_int_mm(&self.weight.f_tr()?)?;
        let sums = sums.f_narrow(1, 0, self.out_features)?.f_to_kind(Kind::Float)?;
        rows.scaled(&sums, &self.scale, self.bias.as_ref())
    }
}

impl PreparedLinear for PreparedIntMm {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        let input_scale = match &self.activations {
            Activations::Static(scale) => Some(scale),
            Activations::Dynamic | Activations::Torchao => None,
        };
        bytes_of([&self.weight, &self.scale].into_iter().chain(&self.bias).chain(input_scale))
    }
}
