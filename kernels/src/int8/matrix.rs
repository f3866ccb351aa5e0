//! An int8 matrix, and its exact product with codes.

use tch::{Device, TchError, Tensor};

use crate::cpu::dot::MOST_IN_FEATURES;
use crate::cpu::gemm;
use crate::kernel::Layer;
use crate::kernel::bytes_of;

/// On CUDA, K and N must be multiples of this.
const CUDA_ALIGNMENT: i64 = 8;

/// Whether no sum of products of a layer's input channels leaves int32.
pub(crate) fn fits_int32(layer: &Layer) -> bool {
    layer.in_features <= MOST_IN_FEATURES as i64
}

/// An int8 matrix that codes are multiplied by.
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
        if device.is_cuda() {
            let out_padding = (-out_features).rem_euclid(CUDA_ALIGNMENT);
            let in_padding = (-in_features).rem_euclid(CUDA_ALIGNMENT);
            if out_padding + in_padding > 0 {
                padded = padded.f_constant_pad_nd([0, in_padding, 0, out_padding])?;
            }
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

/// `codes`, i8 [M, K], times the transposed `weight`, i8 [N, K]: i32 [M, N]. On CUDA, K and N are multiples of
/// [`CUDA_ALIGNMENT`] and M is above 16. On a CPU by [`gemm`], whatever the processor: libtorch's operation is scalar without
/// AVX-512 VNNI. (Only fallbacks multiply so: the weight is ordered anew at every call.)
pub(crate) fn int_mm(codes: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
    if weight.device() == Device::Cpu {
        return gemm::product(&codes.f_contiguous()?, &weight.f_contiguous()?);
    }
    // The transposed view is the layout that the backend wants; a transposed copy is slower.
    codes.f_internal_int_mm(&weight.f_tr()?)
}
