//! compressed-tensors 0.19, the format that llm-compressor writes and transformers and vLLM read.
//!
//! | scheme | format | tensors of a linear layer [N, K] |
//! |---|---|---|
//! | W8A8 | `int-quantized` | `weight` i8 [N, K], `weight_scale` [N, 1] |
//! | W8A8 static | `int-quantized` | also `input_scale` `[1]` |
//! | W8A8 torchao | `int-quantized` | as W8A8; config.json says that activations are rounded as torchao does |
//! | W4A8 | `int-quantized` | `weight` i8 [N, K] from -8 to 7, `weight_scale` [N, K/g] |
//! | W8A16 | `int-quantized` | as W8A8 |
//! | weights of b bits | `pack-quantized` | `weight_packed` i32 [N, ⌈K b/32⌉], `weight_scale` [N, K/g], `weight_shape` i64 `[2]` |
//! | the same, asym | `pack-quantized` | also `weight_zero_point` i32 [⌈N b/32⌉, K/g], packed along N |
//!
//! Which layers, and how, is in config.json: [`QuantizationConfig`].

mod config;
mod describe;
mod field;
mod outside;
mod pattern;

use qpipe_kernels::{Codes, QuantizedWeight, bitstream, packing};
use tch::{Kind, Tensor};

use super::expect_tensor;
use crate::model::checkpoint::Checkpoint;
use crate::model::error::ModelError;
use crate::model::linear::LinearSpec;

pub use config::{QuantizationConfig, StoredScheme};
pub use describe::describe;
pub use outside::{Matrix, describe_outside, read_embedding, store_outside};

/// `quant_method` in config.json.
pub const METHOD: &str = "compressed-tensors";

/// The tensors of a quantized linear layer, after the layer's name and a dot.
pub mod tensors {
    /// i8 [N, K], of W8A8, W8A16 and W4A8.
    pub const WEIGHT: &str = "weight";
    /// i32 [N, ⌈K b/32⌉], of packed weights of b bits.
    pub const PACKED: &str = "weight_packed";
    /// Floating point, [N, 1] or [N, K/g].
    pub const SCALE: &str = "weight_scale";
    /// i32 [⌈N b/32⌉, K/g], of packed weights with zero points: codes, packed like the weight's, along N.
    pub const ZERO: &str = "weight_zero_point";
    /// Floating point `[1]`, of static W8A8.
    pub const INPUT_SCALE: &str = "input_scale";
    /// i64 `[2]`: N and K, of packed weights.
    pub const SHAPE: &str = "weight_shape";
    /// Floating point `[N]`, never quantized.
    pub const BIAS: &str = "bias";
}

/// The layer `spec` of `checkpoint`; `None` where `config` leaves it in floating point.
///
/// # Errors
///
/// Tensors that are missing, or whose type or shape is not what config.json calls for.
pub fn read_linear(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    config: &QuantizationConfig,
) -> Result<Option<QuantizedWeight>, ModelError> {
    config.scheme_of(spec.name).map(|scheme| read(checkpoint, spec, scheme)).transpose()
}

/// The layer `spec`, stored as `scheme`.
fn read(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    scheme: StoredScheme,
) -> Result<QuantizedWeight, ModelError> {
    let (out_features, in_features) = (spec.out_features, spec.in_features);
    let name = |part: &str| format!("{}.{part}", spec.name);
    let int8 = || {
        expect_tensor(checkpoint, &name(tensors::WEIGHT), &[out_features, in_features], Kind::Int8)?;
        checkpoint.tensor(&name(tensors::WEIGHT))
    };
    let channel_scale = || floats(checkpoint, &name(tensors::SCALE), &[out_features, 1]);
    let codes = match scheme {
        StoredScheme::W8A8 => Codes::Int8 { weight: int8()?, scale: channel_scale()? },
        StoredScheme::W8A8Torchao => Codes::Int8Torchao { weight: int8()?, scale: channel_scale()? },
        StoredScheme::W8A8Static => Codes::Int8Static {
            weight: int8()?,
            scale: channel_scale()?,
            input_scale: floats(checkpoint, &name(tensors::INPUT_SCALE), &[1])?,
        },
        StoredScheme::W8A16 => Codes::Int8A16 { weight: int8()?, scale: channel_scale()? },
        StoredScheme::W4A8 { group } => {
            let group = expect_group(checkpoint, spec, group)?;
            let weight = name(tensors::WEIGHT);
            expect_tensor(checkpoint, &weight, &[out_features, in_features], Kind::Int8)?;
            let codes = checkpoint.tensor(&weight)?;
            expect_int4(checkpoint, &weight, &codes)?;
            Codes::Int4A8 {
                packed: packing::pack(&codes)?,
                scale: floats(checkpoint, &name(tensors::SCALE), &[out_features, in_features / group])?,
                group,
            }
        }
        StoredScheme::WeightOnly { bits, group, asym } => {
            let group = expect_group(checkpoint, spec, group)?;
            weight_only(checkpoint, spec, bits, group, asym)?
        }
    };
    let bias =
        if spec.bias { Some(floats(checkpoint, &name(tensors::BIAS), &[out_features])?) } else { None };
    QuantizedWeight::new(codes, bias, out_features, in_features).map_err(|error| ModelError::Quantization {
        file: checkpoint.config.file.clone(),
        problem: format!("`{}`: {error}", spec.name),
    })
}

/// The tensors of the layer `name` as `scheme` stores it: codes i8 [N, K] and scales, floating point [N, 1] or
/// [N, K/g]. Static activations need an [`tensors::INPUT_SCALE`] besides, zero points what [`store_zeros`] gives.
///
/// # Errors
///
/// Only libtorch's.
pub fn store(
    name: &str,
    scheme: StoredScheme,
    codes: &Tensor,
    scale: Tensor,
) -> Result<Vec<(String, Tensor)>, tch::TchError> {
    let named = |part: &str, tensor: Tensor| (format!("{name}.{part}"), tensor);
    let scale = named(tensors::SCALE, scale);
    Ok(match scheme {
        StoredScheme::W8A8
        | StoredScheme::W8A8Static
        | StoredScheme::W8A8Torchao
        | StoredScheme::W8A16
        | StoredScheme::W4A8 { .. } => {
            vec![named(tensors::WEIGHT, codes.shallow_clone()), scale]
        }
        StoredScheme::WeightOnly { bits, .. } => {
            let shape = Tensor::from_slice(&codes.size());
            let packed = bitstream::pack(&unsigned(codes, bits)?, bits)?;
            vec![named(tensors::PACKED, packed), named(tensors::SHAPE, shape), scale]
        }
    })
}

/// The zero points of the layer `name`, u8 [N, K/g], codes from 0 of `bits` bits.
///
/// # Errors
///
/// Only libtorch's.
pub fn store_zeros(name: &str, zero: &Tensor, bits: u32) -> Result<(String, Tensor), tch::TchError> {
    let packed = bitstream::pack(&zero.f_tr()?.f_contiguous()?, bits)?;
    Ok((format!("{name}.{}", tensors::ZERO), packed.f_tr()?.f_contiguous()?))
}

/// Signed codes of `bits` bits counted from the lowest, u8.
fn unsigned(codes: &Tensor, bits: u32) -> Result<Tensor, tch::TchError> {
    codes.f_to_kind(Kind::Int16)?.f_add_scalar(1_i64 << (bits - 1))?.f_to_kind(Kind::Uint8)
}

/// The codes of a packed layer.
fn weight_only(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    bits: u32,
    group: i64,
    asym: bool,
) -> Result<Codes, ModelError> {
    let (out_features, in_features) = (spec.out_features, spec.in_features);
    let name = |part: &str| format!("{}.{part}", spec.name);
    let packed = name(tensors::PACKED);
    expect_tensor(checkpoint, &packed, &[out_features, bitstream::words(in_features, bits)], Kind::Int)?;
    expect_stored_shape(checkpoint, &name(tensors::SHAPE), &[out_features, in_features])?;
    let packed = checkpoint.tensor(&packed)?;
    let groups = in_features / group;
    let scale = floats(checkpoint, &name(tensors::SCALE), &[out_features, groups])?;
    let zero = if asym {
        let zero = name(tensors::ZERO);
        expect_tensor(checkpoint, &zero, &[bitstream::words(out_features, bits), groups], Kind::Int)?;
        let zero = bitstream::unpack(&checkpoint.tensor(&zero)?.f_tr()?, bits, out_features)?;
        Some(zero.f_tr()?.f_contiguous()?)
    } else {
        None
    };
    Ok(Codes::weight_only(packed, bits, scale, zero, group)?)
}

/// The floating-point tensor `name`, in the type that it is stored in.
fn floats(checkpoint: &Checkpoint, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
    checkpoint.float_tensor(name, shape, checkpoint.kind(name)?, tch::Device::Cpu)
}

/// The group size of the layer `spec`, which must divide its input channels; `None`: all of them.
fn expect_group(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    group: Option<i64>,
) -> Result<i64, ModelError> {
    let group = group.unwrap_or(spec.in_features);
    if spec.in_features % group == 0 {
        return Ok(group);
    }
    Err(ModelError::Quantization {
        file: checkpoint.config.file.clone(),
        problem: format!(
            "`{}` has {} input channels, which are not a multiple of the group size {group}",
            spec.name, spec.in_features
        ),
    })
}

/// An error unless all `codes` of the tensor `name` are from -8 to 7.
fn expect_int4(checkpoint: &Checkpoint, name: &str, codes: &Tensor) -> Result<(), ModelError> {
    let beyond = codes.f_lt(-packing::OFFSET)?.f_logical_or(&codes.f_ge(packing::OFFSET)?)?;
    let count = i64::try_from(beyond.f_sum(Kind::Int64)?)?;
    if count == 0 {
        return Ok(());
    }
    Err(ModelError::Quantization {
        file: checkpoint.file_of(name).to_owned(),
        problem: format!("tensor `{name}` has {count} values that are no 4-bit integers"),
    })
}

/// An error unless the tensor `name` holds the numbers `expected`.
fn expect_stored_shape(checkpoint: &Checkpoint, name: &str, expected: &[i64; 2]) -> Result<(), ModelError> {
    expect_tensor(checkpoint, name, &[2], Kind::Int64)?;
    let tensor = checkpoint.tensor(name)?;
    let found = [tensor.f_int64_value(&[0])?, tensor.f_int64_value(&[1])?];
    if found == *expected {
        return Ok(());
    }
    Err(ModelError::Quantization {
        file: checkpoint.file_of(name).to_owned(),
        problem: format!("tensor `{name}` says {found:?}, config.json calls for {expected:?}"),
    })
}
