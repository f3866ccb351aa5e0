//! W8A8 through libtorch's `_int_mm`: int8 by int8 to int32, exact, at every number of rows.
//!
//! On CPUs without AVX-512 VNNI that operation is scalar, and slower than a product in f32 by far. There the integers are
//! multiplied in f32, so few at a time that no sum is rounded: the same int32.

use tch::{Device, Kind, TchError, Tensor};

use crate::activations::{Activations, Int8Rows};
use crate::table::{Kernel, Layer, PreparedLinear};
use crate::weight::{Codes, KernelError, QuantizedWeight, Scheme, bytes_of};

/// On CUDA, K and N must be multiples of this.
const CUDA_ALIGNMENT: i64 = 8;
/// On a CPU, `_int_mm` of libtorch 2.11 reads past the end where K is 1.
const CPU_LEAST_IN_FEATURES: i64 = 2;

/// Products of two int8 whose sum every f32 holds exactly: 2^24 / 2^14.
const EXACT_TERMS: i64 = 1 << 10;
/// Weights that are in f32 at one time: they stay in the second-level cache.
const TILE_WEIGHTS: i64 = 1 << 18;

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
        let bias = weight
            .bias()
            .map(|bias| bias.f_to_device_(layer.device, Kind::Float, false, true))
            .transpose()?;
        Ok(Box::new(PreparedIntMm {
            activations,
            weight: IntMatrix::new(codes, layer.device)?,
            scale: scale.f_to_kind(Kind::Float)?.f_view([-1])?,
            bias,
        }))
    }
}

/// An int8 matrix that `_int_mm` multiplies by.
#[derive(Debug)]
pub(crate) struct IntMatrix {
    /// i8 [N, K], both padded with zeros where the device asks for it.
    padded: Tensor,
    /// N without padding.
    out_features: i64,
    /// K without padding.
    in_features: i64,
}

impl IntMatrix {
    /// From codes, i8 [N, K].
    pub(crate) fn new(codes: &Tensor, device: Device) -> Result<Self, TchError> {
        let (out_features, in_features) = codes.size2()?;
        let mut padded = codes.f_to_device(device)?;
        let (out_padding, in_padding) = if device.is_cuda() {
            ((-out_features).rem_euclid(CUDA_ALIGNMENT), (-in_features).rem_euclid(CUDA_ALIGNMENT))
        } else {
            (0, (CPU_LEAST_IN_FEATURES - in_features).max(0))
        };
        if out_padding + in_padding > 0 {
            padded = padded.f_constant_pad_nd([0, in_padding, 0, out_padding])?;
        }
        Ok(Self { padded: padded.f_contiguous()?, out_features, in_features })
    }

    /// Codes, i8 [M, K], times the transposed matrix: i32 [M, N]. On CUDA, M is above 16.
    pub(crate) fn product(&self, codes: &Tensor) -> Result<Tensor, TchError> {
        let padding = self.padded.size()[1] - self.in_features;
        let codes = if padding > 0 { codes.f_constant_pad_nd([0, padding])? } else { codes.shallow_clone() };
        int_mm(&codes, &self.padded)?.f_narrow(1, 0, self.out_features)
    }

    /// The matrix, i8 [N, K].
    pub(crate) fn codes(&self) -> Result<Tensor, TchError> {
        self.padded.f_narrow(0, 0, self.out_features)?.f_narrow(1, 0, self.in_features)
    }

    /// N.
    pub(crate) fn out_features(&self) -> i64 {
        self.out_features
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_of([&self.padded])
    }
}

/// `codes`, i8 [M, K], times the transposed `weight`, i8 [N, K]: i32 [M, N]. K is at least 2; on CUDA, K and N are
/// multiples of [`CUDA_ALIGNMENT`] and M is above 16.
pub(crate) fn int_mm(codes: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
    if weight.device() == Device::Cpu && !has_int8_instructions() {
        return int_mm_in_f32(codes, weight);
    }
    // The transposed view is the layout that both backends want; a transposed copy is slower.
    codes.f_internal_int_mm(&weight.f_tr()?)
}

/// The same integers by products in f32, of [`EXACT_TERMS`] input channels at a time.
fn int_mm_in_f32(codes: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
    let codes = codes.f_to_kind(Kind::Float)?;
    let (rows, in_features) = codes.size2()?;
    let out_features = weight.size2()?.0;
    let sums = Tensor::f_zeros([rows, out_features], (Kind::Int, codes.device()))?;
    let tile_rows = (TILE_WEIGHTS / in_features).clamp(1, out_features);
    for start in (0..out_features).step_by(tile_rows as usize) {
        let count = tile_rows.min(out_features - start);
        let tile = weight.f_narrow(0, start, count)?.f_to_kind(Kind::Float)?.f_tr()?;
        let mut sums = sums.f_narrow(1, start, count)?;
        for first in (0..in_features).step_by(EXACT_TERMS as usize) {
            let terms = EXACT_TERMS.min(in_features - first);
            let product = codes.f_narrow(1, first, terms)?.f_mm(&tile.f_narrow(0, first, terms)?)?;
            let _ = sums.f_add_(&product.f_to_kind(Kind::Int)?)?;
        }
    }
    Ok(sums)
}

/// Whether libtorch multiplies int8 by more than scalar instructions on this processor.
#[cfg(target_arch = "x86_64")]
fn has_int8_instructions() -> bool {
    std::arch::is_x86_feature_detected!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_int8_instructions() -> bool {
    false
}

#[derive(Debug)]
struct PreparedIntMm {
    weight: IntMatrix,
    /// f32 `[N]`.
    scale: Tensor,
    activations: Activations,
    /// f32 `[N]`.
    bias: Option<Tensor>,
}

impl PreparedIntMm {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let rows = Int8Rows::quantize(x, &self.activations)?;
        let sums = self.weight.product(&rows.codes)?.f_to_kind(Kind::Float)?;
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
        self.weight.bytes() + bytes_of([&self.scale].into_iter().chain(&self.bias).chain(input_scale))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_product_in_f32_has_the_same_integers() {
        let _guard = tch::no_grad_guard();
        let options = (Kind::Int8, Device::Cpu);
        tch::manual_seed(6);
        for (rows, out_features, in_features) in [(3, 5, 8), (17, 300, 2500), (1, 2, 1024)] {
            let codes = Tensor::randint_low(-128, 128, [rows, in_features], options);
            let weight = Tensor::randint_low(-128, 128, [out_features, in_features], options);
            // The largest sums that there can be.
            let _ = codes.narrow(0, 0, 1).fill_(-128);
            let _ = weight.narrow(0, 0, 1).fill_(-128);
            let expected = codes.internal_int_mm(&weight.tr());
            assert!(int_mm_in_f32(&codes, &weight).unwrap().equal(&expected));
        }
    }
}
