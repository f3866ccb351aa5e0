//! What the codes of a weight stand for.

use tch::{Kind, TchError, Tensor};

use super::codes::Codes;
use super::quantized::QuantizedWeight;
use crate::{bitstream, llm_int8, nf4, packing, progressive};

impl QuantizedWeight {
    /// The matrix that the codes stand for, [N, K] of type `kind`, input channels in the activations' order. As
    /// compressed-tensors computes it: differences of codes in that type, times the scale in that type.
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    pub fn value(&self, kind: Kind) -> Result<Tensor, TchError> {
        let stored = self.stored_value(kind)?;
        match self.input_order() {
            None => Ok(stored),
            Some(order) => stored.f_index_select(1, &order.f_argsort(0, false)?),
        }
    }

    /// [`QuantizedWeight::value`] with the input channels in the order of the codes.
    pub(crate) fn stored_value(&self, kind: Kind) -> Result<Tensor, TchError> {
        let in_features = self.in_features();
        let grouped = |codes: Tensor, scale: &Tensor| -> Result<Tensor, TchError> {
            let (rows, groups) = scale.size2()?;
            let codes = codes.f_to_kind(kind)?.f_view([rows, groups, -1])?;
            (codes * scale.f_to_kind(kind)?.f_unsqueeze(-1)?).f_view([rows, in_features])
        };
        let less = |codes: Tensor, zero: &Tensor| -> Result<Tensor, TchError> {
            let (rows, groups) = zero.size2()?;
            let codes = codes.f_to_kind(Kind::Int16)?.f_view([rows, groups, -1])?;
            codes.f_sub(&zero.f_to_kind(Kind::Int16)?.f_unsqueeze(-1)?)
        };
        Ok(match self.codes() {
            Codes::Int8 { weight, scale }
            | Codes::Int8A16 { weight, scale }
            | Codes::Int8Torchao { weight, scale }
            | Codes::Int8Static { weight, scale, .. } => grouped(weight.shallow_clone(), scale)?,
            Codes::Int4 { packed, scale, .. } | Codes::Int4A8 { packed, scale, .. } => {
                grouped(packing::unpack(packed, in_features)?, scale)?
            }
            Codes::Int4Asym { packed, scale, zero, .. } => {
                grouped(less(packing::unpack(packed, in_features)?, zero)?, scale)?
            }
            Codes::Bits { packed, bits, scale, zero, .. } => {
                let codes = bitstream::unpack(packed, *bits, in_features)?;
                let codes = match zero {
                    Some(zero) => less(codes, zero)?,
                    None => codes.f_to_kind(Kind::Int16)?.f_sub_scalar(1_i64 << (bits - 1))?,
                };
                grouped(codes, scale)?
            }
            Codes::LlmInt8 { weight, absmax, .. } => {
                grouped(weight.shallow_clone(), &(absmax.f_unsqueeze(-1)? / llm_int8::LEVELS))?
            }
            Codes::Nf4 { packed, absmax, block, .. } => {
                nf4::value(packed, absmax, *block, self.out_features() * in_features)?
                    .f_to_kind(kind)?
                    .f_view([self.out_features(), in_features])?
            }
            Codes::Progressive { packed, group_scale, group_zero, channel_scale, .. } => {
                let codes = packing::unpack(packed, in_features)?;
                grouped(progressive::expand(&codes, group_scale, group_zero)?, channel_scale)?
            }
        })
    }
}
