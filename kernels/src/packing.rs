//! compressed-tensors' dense packing of 4-bit codes (`pack_to_int32` of its `pack_quantized` compressor):
//! along K, eight codes a 32-bit word, the first in the lowest bits, each stored as code + 8. What fills up
//! the last word is 0 after that offset. 8-bit codes likewise: four a word, each stored as code + 128.

use tch::{Kind, TchError, Tensor};

/// Codes in a 32-bit word.
const PER_WORD: i64 = 8;
/// What is added to a code so that it is never negative.
pub const OFFSET: i64 = 8;

/// Words that hold `in_features` codes.
pub fn words(in_features: i64) -> i64 {
    (in_features + PER_WORD - 1) / PER_WORD
}

/// Packs codes, i8 [N, K] from -8 to 7, into i32 [N, ⌈K/8⌉].
pub fn pack(codes: &Tensor) -> Result<Tensor, TchError> {
    let (rows, columns) = codes.size2()?;
    let padding = words(columns) * PER_WORD - columns;
    // Bytes in memory order are the word's bytes, lowest first, on every processor that libtorch runs on.
    let nibbles = codes.f_add_scalar(OFFSET)?.f_to_kind(Kind::Uint8)?.f_constant_pad_nd([0, padding])?;
    let pairs = nibbles.f_view([rows, words(columns) * PER_WORD / 2, 2])?;
    let high = pairs.f_select(2, 1)?.f_bitwise_left_shift_tensor_scalar(4)?;
    let bytes = pairs.f_select(2, 0)?.f_bitwise_or_tensor(&high)?;
    bytes.f_contiguous()?.f_view_dtype(Kind::Int)
}

/// The codes, i8 [N, `in_features`], of `packed`, i32 [N, ⌈K/8⌉].
pub fn unpack(packed: &Tensor, in_features: i64) -> Result<Tensor, TchError> {
    let rows = packed.size()[0];
    let bytes = bytes(packed)?;
    let nibbles = Tensor::f_stack(&[low(&bytes)?, high(&bytes)?], 2)?.f_view([rows, -1])?;
    nibbles.f_narrow(1, 0, in_features)?.f_to_kind(Kind::Int8)?.f_sub_scalar(OFFSET)
}

/// Packed words, i32 [N, W], as bytes, u8 [N, 4 W]: byte j holds codes 2j (low) and 2j+1 (high).
pub(crate) fn bytes(packed: &Tensor) -> Result<Tensor, TchError> {
    packed.f_contiguous()?.f_view_dtype(Kind::Uint8)
}

/// The low halves of bytes.
pub(crate) fn low(bytes: &Tensor) -> Result<Tensor, TchError> {
    bytes.f_bitwise_and(15)
}

/// The high halves of bytes.
pub(crate) fn high(bytes: &Tensor) -> Result<Tensor, TchError> {
    bytes.f_bitwise_right_shift_tensor_scalar(4)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_code_is_in_the_lowest_bits_and_the_filling_is_zero() {
        let codes = Tensor::from_slice(&[-8_i8, -7, 0, 7, 1, -1, 2, 3, 5]).view([1, 9]);
        let packed = pack(&codes).unwrap();
        assert_eq!(packed.size(), [1, 2]);
        assert_eq!(packed.int64_value(&[0, 0]) as u32 as i32, 0xBA79_F810_u32 as i32);
        assert_eq!(packed.int64_value(&[0, 1]), 0xD);
    }

    proptest! {
        #[test]
        fn unpack_inverts_pack(rows in 1_i64..5, columns in 1_i64..70, seed in any::<i64>()) {
            let _guard = tch::no_grad_guard();
            tch::manual_seed(seed);
            let codes = Tensor::randint_low(-8, 8, [rows, columns], (Kind::Int8, tch::Device::Cpu));
            let packed = pack(&codes).unwrap();
            prop_assert_eq!(packed.size(), [rows, words(columns)]);
            prop_assert!(unpack(&packed, columns).unwrap().equal(&codes));
        }
    }
}
