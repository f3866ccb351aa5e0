//! The tensors of a linear layer.

use qpipe_kernels::bitstream;
use tch::{Device, Kind, TchError, Tensor};

use super::config::Version;
use super::{G_IDX, QWEIGHT, QZEROS, SCALES};

/// A weight to be stored.
#[derive(Debug)]
pub struct Weight<'a> {
    /// u8 [N, K], from 0.
    pub codes: &'a Tensor,
    /// [N, K/g].
    pub scale: &'a Tensor,
    /// u8 [N, K/g], from 0.
    pub zero: &'a Tensor,
    /// i64 `[K]`: the group of each input channel; `None`: neighbours.
    pub group_of: Option<&'a Tensor>,
}

/// The tensors of the layer `name`. N and K are multiples of [`super::MULTIPLE`].
///
/// # Errors
///
/// Only libtorch's.
pub fn store(
    name: &str,
    bits: u32,
    version: Version,
    weight: &Weight<'_>,
) -> Result<Vec<(String, Tensor)>, TchError> {
    let named = |part: &str, tensor: Tensor| (format!("{name}.{part}"), tensor);
    let (in_features, groups) = (weight.codes.size()[1], weight.scale.size()[1]);
    let group_of = match weight.group_of {
        Some(group_of) => group_of.shallow_clone(),
        None => Tensor::f_arange(in_features, (Kind::Int64, weight.codes.device()))?
            .f_divide_scalar_mode(in_features / groups, "floor")?,
    };
    let zeros = bitstream::pack(&weight.zero.f_tr()?.f_contiguous()?, bits)?;
    let zeros = match version {
        Version::V1 => shifted(&zeros, bits, weight.zero.size()[0], -1)?,
        Version::V2 => zeros,
    };
    Ok(vec![
        named(QWEIGHT, bitstream::pack(weight.codes, bits)?.f_tr()?.f_contiguous()?),
        named(QZEROS, zeros),
        named(SCALES, weight.scale.f_tr()?.f_to_kind(Kind::Half)?.f_contiguous()?),
        named(G_IDX, group_of.f_to_kind(Kind::Int)?),
    ])
}

/// Packed zero points, i32 [G, words] for `count` codes a row, each `by` one more (1) or less (-1), as v1 counts.
pub(super) fn shifted(zeros: &Tensor, bits: u32, count: i64, by: i64) -> Result<Tensor, TchError> {
    if i64::from(u32::BITS) % i64::from(bits) == 0 {
        return zeros.f_add(&(ones(bits, zeros.size()[1], zeros.device())? * by));
    }
    let codes = bitstream::unpack(zeros, bits, count)?.f_to_kind(Kind::Int16)?.f_add_scalar(by)?;
    bitstream::pack(&codes.f_bitwise_and((1 << bits) - 1)?.f_to_kind(Kind::Uint8)?, bits)
}

/// Words, i32 [1, `words`], whose codes are all 1.
fn ones(bits: u32, words: i64, device: Device) -> Result<Tensor, TchError> {
    let codes = Tensor::f_ones([1, words * 32 / i64::from(bits) + 1], (Kind::Uint8, device))?;
    bitstream::pack(&codes, bits)?.f_narrow(1, 0, words)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn one_is_taken_off_each_code_of_3_bits() {
        // The words that GPTQModel 7.3.4 writes for symmetric zero points, 4 less 1.
        let fours = bitstream::pack(&Tensor::full([1, 32], 4, (Kind::Uint8, Device::Cpu)), 3).unwrap();
        let stored = shifted(&fours, 3, 32, -1).unwrap();
        let words: Vec<u32> = (0..3).map(|word| stored.int64_value(&[0, word]) as u32).collect();
        assert_eq!(words, [0xDB6D_B6DB, 0xB6DB_6DB6, 0x6DB6_DB6D]);
        assert!(shifted(&stored, 3, 32, 1).unwrap().equal(&fours));
        let all = Tensor::arange(8, (Kind::Uint8, Device::Cpu)).repeat([1, 4]);
        let packed = bitstream::pack(&all, 3).unwrap();
        let back = shifted(&shifted(&packed, 3, 32, -1).unwrap(), 3, 32, 1).unwrap();
        assert!(bitstream::unpack(&back, 3, 32).unwrap().equal(&all));
    }

    #[test]
    fn symmetric_zero_points_of_version_1_are_the_well_known_words() {
        for (bits, word) in [(2, 0x5555_5555_u32), (4, 0x7777_7777), (8, 0x7F7F_7F7F)] {
            let weight = |shape: [i64; 2], value: i64| Tensor::full(shape, value, (Kind::Uint8, Device::Cpu));
            let stored = store(
                "x",
                bits,
                Version::V1,
                &Weight {
                    codes: &weight([32, 32], 0),
                    scale: &Tensor::ones([32, 1], (Kind::Float, Device::Cpu)),
                    zero: &weight([32, 1], 1 << (bits - 1)),
                    group_of: None,
                },
            )
            .unwrap();
            assert_eq!(stored[1].0, "x.qzeros");
            assert_eq!(stored[1].1.int64_value(&[0, 0]) as u32, word);
        }
    }
}
