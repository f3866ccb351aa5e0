//! GPTQ's codes in the formats that other programs load.

use qpipe_nodes::kinds::{self, GptqFormat};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::solve::Solved;
use crate::model::decoder::HEAD;
use crate::model::formats::compressed_tensors::{self, StoredScheme};
use crate::model::formats::gptq::{self, Version};
use crate::quant::error::QuantizeError;
use crate::quant::layers::{Layer, check_float16_scales};

/// An error if the format has no place for `layer`.
pub(super) fn check(layer: &Layer, options: &kinds::Gptq) -> Result<(), QuantizeError> {
    if !matches!(options.format(), GptqFormat::Gptq | GptqFormat::GptqV2) {
        return Ok(());
    }
    let multiple = gptq::MULTIPLE;
    if layer.out_features % multiple != 0 {
        return Err(QuantizeError::Channels {
            tensor: layer.weight.clone(),
            out_features: layer.out_features,
            multiple,
        });
    }
    if layer.in_features % multiple != 0 {
        return Err(QuantizeError::InChannels {
            tensor: layer.weight.clone(),
            in_features: layer.in_features,
            multiple,
        });
    }
    Ok(())
}

/// The tensors of `layer`.
pub(super) fn store(
    layer: &Layer,
    options: &kinds::Gptq,
    solved: Solved,
) -> Result<Vec<(String, Tensor)>, QuantizeError> {
    let name = &layer.name;
    let bits = options.bits();
    let Solved { codes, scale, zero, group_of, .. } = solved;
    if let Some(version) = version(options) {
        let zero = match zero {
            Some(zero) => zero.f_to_kind(Kind::Uint8)?,
            None => scale.f_full_like((1_i64 << (bits - 1)) as f64)?.f_to_kind(Kind::Uint8)?,
        };
        check_float16_scales(layer, &scale, version.name())?;
        let weight = gptq::Weight { codes: &codes, scale: &scale, zero: &zero, group_of: group_of.as_ref() };
        return Ok(gptq::store(name, bits, version, &weight)?);
    }
    let half = 1_i64 << (bits - 1);
    let signed = |codes: &Tensor| codes.f_to_kind(Kind::Int16)?.f_sub_scalar(half)?.f_to_kind(Kind::Int8);
    let scheme = scheme(options);
    let scale = scale.f_to_kind(layer.kind)?;
    let mut stored = compressed_tensors::store(name, scheme, &signed(&codes)?, scale)?;
    if let (Some(zero), false) = (zero, options.symmetric()) {
        stored.push(compressed_tensors::store_zeros(name, &zero.f_to_kind(Kind::Uint8)?, bits)?);
    }
    Ok(stored)
}

/// `quantization_config`.
pub(super) fn config(options: &kinds::Gptq) -> Value {
    match version(options) {
        Some(version) => gptq::describe(&gptq::Config {
            bits: options.bits(),
            group: options.group().map(i64::from),
            is_symmetric: options.symmetric(),
            scatters_groups: options.scatters_groups(),
            version,
            damping: options.damping(),
        }),
        None => compressed_tensors::describe(scheme(options), &[HEAD]),
    }
}

fn version(options: &kinds::Gptq) -> Option<Version> {
    match options.format() {
        GptqFormat::Gptq => Some(Version::V1),
        GptqFormat::GptqV2 => Some(Version::V2),
        GptqFormat::PackQuantized | GptqFormat::IntQuantized => None,
    }
}

fn scheme(options: &kinds::Gptq) -> StoredScheme {
    if options.quantizes_activations() {
        return StoredScheme::W8A8;
    }
    StoredScheme::WeightOnly {
        bits: options.bits(),
        group: options.group().map(i64::from),
        asym: !options.symmetric(),
    }
}
