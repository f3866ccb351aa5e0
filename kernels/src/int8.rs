//! W8A8 through libtorch's `_int_mm`: int8 by int8 to int32, exact, at every number of rows.

use tch::{Device, Kind, Tensor};

use crate::symmetric;
use crate::table::{Kernel, Layer, PreparedLinear};
use crate::weight::{Codes, KernelError, QuantizedWeight, Scheme, bytes_of};

/// On CUDA, K and N must be multiples of this.
const CUDA_ALIGNMENT: i64 = 8;
/// On a CPU, `_int_mm` of libtorch 2.11 reads past the end where K is 1.
const CPU_LEAST_IN_FEATURES: i64 = 2;
/// On CUDA, `_int_mm` wants more than 16 rows; fewer are filled up to this.
const CUDA_LEAST_ROWS: i64 = 32;

/// Activations are quantized a token at a time (see [`symmetric`]), multiplied as integers, and the sums are
/// scaled in f32 by the token's and the output channel's scale.
#[derive(Debug)]
pub struct IntMm;

impl Kernel for IntMm {
    fn name(&self) -> &'static str {
        "w8a8-int-mm"
    }

    fn supports(&self, layer: &Layer) -> bool {
        layer.scheme == Scheme::W8A8 && matches!(layer.device, Device::Cpu | Device::Cuda(_))
    }

    fn prepare(
        &self,
        weight: QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::Int8 { weight: codes, scale } = weight.codes() else {
            unreachable!("supports() admits W8A8 only");
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
        // Rounded to the activations' type first: that is what a checkpoint loaded in that type means.
        let scale = scale.f_to_device_(layer.device, layer.kind, false, false)?;
        let bias = weight
            .bias()
            .map(|bias| bias.f_to_device_(layer.device, Kind::Float, false, true))
            .transpose()?;
        Ok(Box::new(PreparedIntMm {
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
    /// f32 `[N]`.
    bias: Option<Tensor>,
    in_padding: i64,
    /// N without padding.
    out_features: i64,
}

impl PreparedLinear for PreparedIntMm {
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut shape = x.size();
        let in_features = shape.pop().expect("activations have a last dimension");
        shape.push(self.out_features);
        let x = x.reshape([-1, in_features]);
        let x_scale = symmetric::scales(&x, 8);
        let codes = symmetric::codes(&x, &x_scale, 8);

        let rows = codes.size()[0];
        let missing = if codes.device().is_cuda() { (CUDA_LEAST_ROWS - rows).max(0) } else { 0 };
        let codes = if missing + self.in_padding > 0 {
            codes.constant_pad_nd([0, self.in_padding, 0, missing])
        } else {
            codes
        };
        // The transposed view is the layout that both backends want; a transposed copy is slower.
        let sums = codes.internal_int_mm(&self.weight.tr());
        let sums = sums.narrow(0, 0, rows).narrow(1, 0, self.out_features);

        let mut y = sums.to_kind(Kind::Float);
        y *= x_scale.to_kind(Kind::Float);
        y *= &self.scale;
        if let Some(bias) = &self.bias {
            y += bias;
        }
        y.to_kind(x.kind()).view(shape.as_slice())
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.weight, &self.scale].into_iter().chain(&self.bias))
    }
}
