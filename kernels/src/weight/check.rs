//! Whether the tensors of a weight fit together.

use tch::{Kind, Tensor};

use super::codes::Codes;
use super::error::KernelError;
use crate::nf4::{self, Absmax};
use crate::{bitstream, packing, progressive};

/// What weights of NF4 are multiplied in.
const COMPUTE: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];
pub(super) const FLOATS: &[Kind] = &[Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double];

/// An error unless `codes` are what [`Codes`] says of a layer of this size.
pub(super) fn expect_consistent(
    codes: &Codes,
    out_features: i64,
    in_features: i64,
) -> Result<(), KernelError> {
    match codes {
        Codes::LlmInt8 { weight, absmax, .. } => {
            expect("weight", weight, &[Kind::Int8], &[out_features, in_features])?;
            expect("absmax", absmax, &[Kind::Float], &[out_features])?;
        }
        Codes::Nf4 { packed, absmax, block, compute } => {
            expect_nf4(packed, absmax, *block, out_features * in_features)?;
            if !COMPUTE.contains(compute) {
                return Err(KernelError::Compute { found: *compute });
            }
        }
        Codes::Int8 { weight, scale }
        | Codes::Int8A16 { weight, scale }
        | Codes::Int8Torchao { weight, scale } => {
            expect("weight", weight, &[Kind::Int8], &[out_features, in_features])?;
            expect("scale", scale, FLOATS, &[out_features, 1])?;
        }
        Codes::Int4 { packed, scale, group } | Codes::Int4A8 { packed, scale, group } => {
            expect_packed(packed, *group, out_features, in_features)?;
            expect("scale", scale, FLOATS, &[out_features, in_features / group])?;
        }
        Codes::Int4Asym { packed, scale, zero, group } => {
            expect_packed(packed, *group, out_features, in_features)?;
            let groups = [out_features, in_features / group];
            expect("scale", scale, FLOATS, &groups)?;
            expect("zero", zero, &[Kind::Int8], &groups)?;
            expect_range("zero", zero, (-packing::OFFSET, packing::OFFSET - 1))?;
        }
        Codes::Bits { packed, bits, scale, zero, group } => {
            if !(1..=8).contains(bits) {
                return Err(KernelError::Bits { bits: *bits });
            }
            let words = bitstream::words(in_features, *bits);
            expect_group(*group, in_features)?;
            expect("packed", packed, &[Kind::Int], &[out_features, words])?;
            let groups = [out_features, in_features / group];
            expect("scale", scale, FLOATS, &groups)?;
            if let Some(zero) = zero {
                expect("zero", zero, &[Kind::Uint8], &groups)?;
                expect_range("zero", zero, (0, (1 << bits) - 1))?;
            }
        }
        Codes::Int8Static { weight, scale, input_scale } => {
            expect("weight", weight, &[Kind::Int8], &[out_features, in_features])?;
            expect("scale", scale, FLOATS, &[out_features, 1])?;
            expect("input_scale", input_scale, FLOATS, &[1])?;
        }
        Codes::Progressive { packed, group_scale, group_zero, channel_scale, group } => {
            expect_packed(packed, *group, out_features, in_features)?;
            let groups = [out_features, in_features / group];
            expect("group_scale", group_scale, &[Kind::Int8], &groups)?;
            expect("group_zero", group_zero, &[Kind::Int8], &groups)?;
            expect("channel_scale", channel_scale, FLOATS, &[out_features, 1])?;
            let count = progressive::beyond_int8(group_scale, group_zero)?;
            if count > 0 {
                return Err(KernelError::BeyondInt8 { count });
            }
        }
    }
    Ok(())
}

/// An error unless all of `tensor`, in integers, is within `lowest` and `highest`.
fn expect_range(
    name: &'static str,
    tensor: &Tensor,
    (lowest, highest): (i64, i64),
) -> Result<(), KernelError> {
    let (least, most) = tensor.f_aminmax(None, false)?;
    let (least, most) = (i64::try_from(least)?, i64::try_from(most)?);
    if least >= lowest && most <= highest {
        return Ok(());
    }
    Err(KernelError::Range { tensor: name, least, most, lowest, highest })
}

/// An error unless `packed` holds the codes of an [N, K] weight and `group` divides K.
fn expect_packed(
    packed: &Tensor,
    group: i64,
    out_features: i64,
    in_features: i64,
) -> Result<(), KernelError> {
    expect_group(group, in_features)?;
    expect("packed", packed, &[Kind::Int], &[out_features, packing::words(in_features)])
}

/// An error unless `group` divides K.
fn expect_group(group: i64, in_features: i64) -> Result<(), KernelError> {
    if group < 1 || in_features % group != 0 {
        return Err(KernelError::Group { group, in_features });
    }
    Ok(())
}

/// An error unless `packed` and `absmax` hold `weights` NF4 weights.
fn expect_nf4(packed: &Tensor, absmax: &Absmax, block: i64, weights: i64) -> Result<(), KernelError> {
    if block < 2 || block % 2 != 0 {
        return Err(KernelError::Block { block });
    }
    expect("packed", packed, &[Kind::Uint8], &[(weights + 1) / 2])?;
    let blocks = nf4::blocks(weights, block);
    match absmax {
        Absmax::Plain(values) => expect("absmax", values, &[Kind::Float], &[blocks]),
        Absmax::Nested { code, map, scale, .. } => {
            expect("absmax", code, &[Kind::Uint8], &[blocks])?;
            expect("nested map", map, &[Kind::Float], &[256])?;
            expect("nested scale", scale, &[Kind::Float], &[nf4::blocks(blocks, nf4::NESTED_BLOCK)])
        }
    }
}

/// An error unless `tensor` has one of these types, and this shape.
pub(crate) fn expect(
    name: &'static str,
    tensor: &Tensor,
    kinds: &[Kind],
    shape: &[i64],
) -> Result<(), KernelError> {
    if kinds.contains(&tensor.kind()) && tensor.size() == shape {
        return Ok(());
    }
    let kind = if kinds.len() == 1 { format!("{:?}", kinds[0]) } else { "floating point".to_owned() };
    Err(KernelError::Inconsistent {
        tensor: name,
        found_kind: tensor.kind(),
        found: tensor.size(),
        expected: format!("{kind} {shape:?}"),
    })
}
