//! Codes of any width as a dense stream of bits in 32-bit words: code k of a row takes the bits from b k on, the
//! lowest bit of a word first, and crosses into the next word where b does not divide 32. This is the packing of
//! compressed-tensors (`pack_to_int32`) along K and that of GPTQ's files along K and N; what fills up the last word
//! is 0. Codes count from 0. For 4 bits it is [`crate::packing`], whose codes are signed.

use tch::{Kind, TchError, Tensor};

/// Codes that fill whole words at every width.
const PERIOD: i64 = 32;
/// Bits of a word.
const WORD: i64 = 32;

/// Words that hold `count` codes of `bits` bits.
pub fn words(count: i64, bits: u32) -> i64 {
    (count * i64::from(bits)).div_euclid(WORD) + i64::from((count * i64::from(bits)) % WORD > 0)
}

/// Packs codes, u8 [R, C] below 2^`bits` with at most 8 bits, into i32 [R, words].
pub fn pack(codes: &Tensor, bits: u32) -> Result<Tensor, TchError> {
    let (rows, columns) = codes.size2()?;
    let bits = i64::from(bits);
    let missing = columns.rem_euclid(PERIOD);
    let codes =
        if missing > 0 { codes.f_constant_pad_nd([0, PERIOD - missing])? } else { codes.shallow_clone() };
    let periods = codes.f_view([rows, -1, PERIOD])?.f_to_kind(Kind::Int64)?;
    let mut packed = Vec::with_capacity(bits as usize);
    for word in 0..bits {
        let mut sum = Tensor::f_zeros([rows, periods.size()[1]], (Kind::Int64, codes.device()))?;
        for place in 0..PERIOD {
            let shift = bits * place - WORD * word;
            if shift <= -bits || shift >= WORD {
                continue;
            }
            let code = periods.f_select(2, place)?;
            let part = if shift >= 0 {
                code.f_bitwise_left_shift_tensor_scalar(shift)?
            } else {
                code.f_bitwise_right_shift_tensor_scalar(-shift)?
            };
            let _ = sum.f_bitwise_or_tensor_(&part)?;
        }
        // The low half of 64 bits, as a signed word.
        packed.push(sum.f_view_dtype(Kind::Int)?.f_view([rows, -1, 2])?.f_select(2, 0)?);
    }
    let packed = Tensor::f_stack(&packed, 2)?.f_view([rows, -1])?;
    packed.f_narrow(1, 0, words(columns, bits as u32))?.f_contiguous()
}

/// The first `columns` codes of each row, u8 [R, `columns`], of `packed`, i32 [R, W].
pub fn unpack(packed: &Tensor, bits: u32, columns: i64) -> Result<Tensor, TchError> {
    let rows = packed.size()[0];
    let mask = (1_i64 << bits) - 1;
    if 8 % bits == 0 {
        // No code crosses a byte; bytes in memory order are the word's, lowest first.
        let bytes = packed.f_contiguous()?.f_view_dtype(Kind::Uint8)?;
        let codes = (0..8 / i64::from(bits))
            .map(|place| {
                let shifted = bytes.f_bitwise_right_shift_tensor_scalar(place * i64::from(bits))?;
                shifted.f_bitwise_and(mask)
            })
            .collect::<Result<Vec<_>, _>>()?;
        return Tensor::f_stack(&codes, 2)?.f_view([rows, -1])?.f_narrow(1, 0, columns)?.f_contiguous();
    }
    let bits = i64::from(bits);
    let missing = packed.size()[1].rem_euclid(bits);
    let packed =
        if missing > 0 { packed.f_constant_pad_nd([0, bits - missing])? } else { packed.shallow_clone() };
    let periods = packed.f_view([rows, -1, bits])?;
    let words = (0..bits).map(|word| periods.f_select(2, word)).collect::<Result<Vec<_>, _>>()?;
    let mut codes = Vec::with_capacity(PERIOD as usize);
    for place in 0..PERIOD {
        let (word, shift) = ((bits * place / WORD) as usize, bits * place % WORD);
        // The shift of a negative word brings in ones, which the mask takes away.
        let mut code = words[word].f_bitwise_right_shift_tensor_scalar(shift)?;
        let held = WORD - shift;
        if held < bits {
            code = code.f_bitwise_and((1 << held) - 1)?;
            let _ = code.f_bitwise_or_tensor_(&words[word + 1].f_bitwise_left_shift_tensor_scalar(held)?)?;
        }
        codes.push(code.f_bitwise_and(mask)?.f_to_kind(Kind::Uint8)?);
    }
    Tensor::f_stack(&codes, 2)?.f_view([rows, -1])?.f_narrow(1, 0, columns)?.f_contiguous()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;
    use tch::Device;

    use super::*;
    use crate::packing;

    fn random(rows: i64, columns: i64, bits: u32) -> Tensor {
        Tensor::randint_low(0, 1 << bits, [rows, columns], (Kind::Uint8, Device::Cpu))
    }

    #[test]
    fn codes_of_three_bits_cross_words() {
        let codes = Tensor::from_slice(&[7_u8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 6]).view([1, 12]);
        let packed = pack(&codes, 3).unwrap();
        assert_eq!(packed.size(), [1, 2]);
        // 7 at bit 0, 1 at bit 6, the low two bits of 5 at bit 30; its high bit at bit 0, 6 at bit 1.
        assert_eq!(packed.int64_value(&[0, 0]) as u32, 0b01 << 30 | 1 << 6 | 7);
        assert_eq!(packed.int64_value(&[0, 1]), 6 << 1 | 1);
    }

    #[test]
    fn four_bits_are_packed_as_compressed_tensors_packs_them() {
        let codes = random(3, 41, 4);
        let signed = codes.to_kind(Kind::Int8) - packing::OFFSET;
        assert!(pack(&codes, 4).unwrap().equal(&packing::pack(&signed).unwrap()));
    }

    proptest! {
        #[test]
        fn unpack_inverts_pack(
            rows in 1_i64..5, columns in 1_i64..140, bits in 1_u32..9, seed in any::<i64>(),
        ) {
            let _guard = tch::no_grad_guard();
            tch::manual_seed(seed);
            let codes = random(rows, columns, bits);
            let packed = pack(&codes, bits).unwrap();
            prop_assert_eq!(packed.size(), [rows, words(columns, bits)]);
            prop_assert!(unpack(&packed, bits, columns).unwrap().equal(&codes));
        }
    }
}
