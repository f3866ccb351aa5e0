//! NF4, the 4-bit type of QLoRA (Dettmers et al., 2023, arXiv 2305.14314), as bitsandbytes 0.50 stores it.
//!
//! The weight is flattened row by row and cut into blocks, which need not end where rows end:
//! weight\[i\] = [`TABLE`]\[code\[i\]\] · absmax\[i / block\], in f32. Codes are two a byte, the first in the high half.
//! With double quantization the largest magnitudes are themselves stored in 8 bits ([`Absmax::Nested`]).

pub(crate) mod cuda;
pub(crate) mod fused;
pub(crate) mod tiles;

use tch::{Device, Kind, TchError, Tensor};

use crate::kernel::bytes_of;

/// What the 16 codes stand for: quantiles of a normal distribution, 0 among them.
pub const TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];
/// Largest magnitudes that share a scale under double quantization.
pub const NESTED_BLOCK: i64 = 256;

/// The largest magnitude of each block.
#[derive(Debug)]
pub enum Absmax {
    /// f32 `[B]`.
    Plain(Tensor),
    /// absmax\[b\] = map\[code\[b\]\] · scale\[b / 256\] + offset, in f32.
    Nested {
        /// u8 `[B]`.
        code: Tensor,
        /// f32 `[256]`: what the codes stand for.
        map: Tensor,
        /// f32 [⌈B/256⌉].
        scale: Tensor,
        /// The mean of all largest magnitudes.
        offset: f32,
    },
}

impl Absmax {
    /// The largest magnitudes of `count` blocks from `first` on, f32 `[count]`.
    pub fn values(&self, first: i64, count: i64) -> Result<Tensor, TchError> {
        match self {
            Self::Plain(values) => values.f_narrow(0, first, count),
            Self::Nested { code, map, scale, offset } => {
                let code = code.f_narrow(0, first, count)?.f_to_kind(Kind::Int)?;
                let place = Tensor::f_arange_start(first, first + count, (Kind::Int, code.device()))?;
                let scale = scale.f_index_select(0, &place.f_floor_divide_scalar(NESTED_BLOCK)?)?;
                map.f_index_select(0, &code)?.f_mul(&scale)?.f_add_scalar(f64::from(*offset))
            }
        }
    }

    /// A copy on `device`; the same tensors where they are there already.
    pub fn to_device(&self, device: Device) -> Result<Self, TchError> {
        let moved = |tensor: &Tensor| tensor.f_to_device(device)?.f_contiguous();
        Ok(match self {
            Self::Plain(values) => Self::Plain(moved(values)?),
            Self::Nested { code, map, scale, offset } => {
                Self::Nested { code: moved(code)?, map: moved(map)?, scale: moved(scale)?, offset: *offset }
            }
        })
    }

    /// Whether they are stored in 8 bits.
    pub fn is_nested(&self) -> bool {
        matches!(self, Self::Nested { .. })
    }

    /// Bytes of its tensors.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Plain(values) => bytes_of([values]),
            Self::Nested { code, map, scale, .. } => bytes_of([code, map, scale]),
        }
    }
}

/// Blocks of `block` weights in `weights`: the last may be shorter.
pub fn blocks(weights: i64, block: i64) -> i64 {
    (weights + block - 1) / block
}

/// Packs codes, u8 `[W]` from 0 to 15, into u8 [⌈W/2⌉], the first of two in the high half. What fills up the last byte
/// is the code of 0.
pub fn pack(codes: &Tensor) -> Result<Tensor, TchError> {
    let padding = codes.size1()? % 2;
    let codes = if padding > 0 {
        let zero = Tensor::f_full([1], ZERO, (Kind::Uint8, codes.device()))?;
        Tensor::f_cat(&[codes, &zero], 0)?
    } else {
        codes.shallow_clone()
    };
    let pairs = codes.f_view([-1, 2])?;
    pairs.f_select(1, 0)?.f_bitwise_left_shift_tensor_scalar(4)?.f_bitwise_or_tensor(&pairs.f_select(1, 1)?)
}

/// The codes, u8 `[weights]`, of `packed`, u8 [⌈weights/2⌉].
pub fn unpack(packed: &Tensor, weights: i64) -> Result<Tensor, TchError> {
    let halves = [packed.f_bitwise_right_shift_tensor_scalar(4)?, packed.f_bitwise_and(15)?];
    Tensor::f_stack(&halves, 1)?.f_view([-1])?.f_narrow(0, 0, weights)
}

/// What codes stand for, f32 `[weights]`: `packed`, u8 [⌈weights/2⌉], with a magnitude for each `block` weights.
pub(crate) fn value(packed: &Tensor, absmax: &Absmax, block: i64, weights: i64) -> Result<Tensor, TchError> {
    let codes = unpack(packed, weights)?.f_to_kind(Kind::Int64)?;
    let table = Tensor::f_from_slice(&TABLE)?.f_to_device(codes.device())?;
    let absmax = absmax.values(0, blocks(weights, block))?.f_repeat_interleave_self_int(block, 0, None)?;
    table.f_index_select(0, &codes)?.f_mul(&absmax.f_narrow(0, 0, weights)?)
}

/// The code of 0 in [`TABLE`].
const ZERO: i64 = 7;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_code_is_in_the_high_half_and_the_filling_is_zero() {
        let packed = pack(&Tensor::from_slice(&[1_u8, 2, 15])).unwrap();
        assert_eq!(Vec::<u8>::try_from(packed).unwrap(), [0x12, 0xF7]);
        assert_eq!(TABLE[ZERO as usize], 0.0);
    }

    #[test]
    fn nested_magnitudes_have_the_scale_of_their_block() {
        let code = Tensor::arange(600, (Kind::Int64, Device::Cpu)).fmod(3.0).to_kind(Kind::Uint8);
        let map = Tensor::arange(256, (Kind::Float, Device::Cpu));
        let scale = Tensor::from_slice(&[1.0_f32, 10.0, 100.0]);
        let absmax = Absmax::Nested { code, map, scale, offset: 0.5 };
        let values = Vec::<f32>::try_from(absmax.values(254, 4).unwrap()).unwrap();
        assert_eq!(values, [2.5, 0.5, 10.5, 20.5]);
        assert_eq!(absmax.values(512, 88).unwrap().double_value(&[0]), 200.5);
    }

    proptest! {
        #[test]
        fn unpack_inverts_pack(weights in 1_i64..70, seed in any::<i64>()) {
            let _guard = tch::no_grad_guard();
            tch::manual_seed(seed);
            let codes = Tensor::randint_low(0, 16, [weights], (Kind::Uint8, Device::Cpu));
            let packed = pack(&codes).unwrap();
            prop_assert_eq!(packed.size(), [(weights + 1) / 2]);
            prop_assert!(unpack(&packed, weights).unwrap().equal(&codes));
        }
    }
}
