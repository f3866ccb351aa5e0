//! Matrices as Hopper's copy engine is told of them.

use std::ffi::c_void;

use cudarc::driver::sys::{
    self, CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle,
};
use tch::{Kind, Tensor};

use super::CudaError;
use super::device::checked;

/// A matrix of which boxes are copied to shared memory, 64 or 128 bytes of some of its rows at once, in the copy engine's order for rows of
/// so many bytes (its "swizzle"), with zeros beyond the matrix. It is told an address: the matrix has to live as long.
#[derive(Clone, Copy, Debug)]
pub struct TensorMap(pub(super) CUtensorMap);

impl TensorMap {
    /// Of `matrix` [M, K], in 8 or 16 bits, contiguous on a device, a row a multiple of 16 bytes, in boxes of `box_rows` rows of `row_bytes`
    /// bytes.
    pub(crate) fn of(matrix: &Tensor, row_bytes: u32, box_rows: u32) -> Result<Self, CudaError> {
        let kind = match matrix.kind() {
            Kind::Int8 | Kind::Uint8 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            Kind::Half => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            Kind::BFloat16 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            other => unreachable!("no kernel asks for a map of {other:?}"),
        };
        let (size, element) = (matrix.size(), matrix.kind().elt_size_in_bytes() as u64);
        debug_assert!(matrix.is_contiguous() && size.len() == 2);
        let shape = [size[1] as u64, size[0] as u64];
        let strides = [shape[0] * element];
        let (boxes, steps) = ([row_bytes / element as u32, box_rows], [1, 1]);
        let order = match row_bytes {
            64 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            128 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            other => unreachable!("no kernel asks for boxes of {other} bytes"),
        };
        let mut map = CUtensorMap { opaque: [0; 16] };
        // SAFETY: a driver that has loaded code for 9.0 has the function; both dimensions have their numbers, and it reads no
        // matrix.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                kind,
                2,
                matrix.data_ptr().cast::<c_void>(),
                shape.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                order,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        checked("cuTensorMapEncodeTiled", "a matrix", encoded)?;
        Ok(Self(map))
    }
}
