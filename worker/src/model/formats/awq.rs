//! AutoAWQ's format, version `gemm`.
//!
//! | tensor of a linear layer [N, K], g input channels a group | |
//! |---|---|
//! | `qweight` i32 [K, N/8] | codes from 0 to 15; nibble i of word c holds output channel 8 c + [0, 2, 4, 6, 1, 3, 5, 7]\[i\] |
//! | `qzeros` i32 [K/g, N/8] | zero points, packed likewise |
//! | `scales` f16 [K/g, N] | weight = (code - zero) · scale |
//!
//! config.json: `"quantization_config": {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": g,
//! "zero_point": true, "modules_to_not_convert": [parts of names] or null}`.

use std::path::Path;

use qpipe_kernels::{Codes, QuantizedWeight, packing};
use serde_json::{Value, json};
use tch::{Device, Kind, TchError, Tensor};

use super::{expect_known, expect_tensor};
use crate::model::checkpoint::Checkpoint;
use crate::model::decoder::HEAD;
use crate::model::error::ModelError;
use crate::model::linear::LinearSpec;

/// `quant_method` in config.json.
pub const METHOD: &str = "awq";
/// The one version: AutoAWQ's default, and what other programs load.
const GEMM: &str = "gemm";
/// Codes in a word.
pub const PER_WORD: i64 = 8;
/// Which of eight output channels a nibble holds, the lowest nibble first.
const ORDER: [i64; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Settings that decide what a folder's numbers mean, under AutoAWQ's names and transformers'.
const SETTINGS: [&str; 10] = [
    "quant_method",
    "version",
    "format",
    "w_bit",
    "bits",
    "zero_point",
    "q_group_size",
    "group_size",
    "modules_to_not_convert",
    "checkpoint_format",
];
/// Settings that only say how others are to load it.
const HISTORY: [&str; 6] =
    ["backend", "do_fuse", "fuse_max_seq_len", "modules_to_fuse", "exllama_config", "meta"];

const QWEIGHT: &str = "qweight";
const QZEROS: &str = "qzeros";
const SCALES: &str = "scales";

/// The `quantization_config` of a checkpoint whose linear layers, all but the output projection, are in this
/// format: the very object that AutoAWQ 0.2 writes.
pub fn describe(group: i64) -> Value {
    json!({
        "quant_method": METHOD,
        "version": GEMM,
        "bits": 4,
        "group_size": group,
        "zero_point": true,
        "modules_to_not_convert": null,
    })
}

/// The tensors of the layer `name`: codes and zero points from 0 to 15, u8 [N, K] and [N, K/g], scales [N, K/g].
///
/// # Errors
///
/// Only libtorch's.
pub fn store(
    name: &str,
    codes: &Tensor,
    scale: &Tensor,
    zero: &Tensor,
) -> Result<Vec<(String, Tensor)>, TchError> {
    let named = |part: &str, tensor: Tensor| (format!("{name}.{part}"), tensor);
    Ok(vec![
        named(QWEIGHT, pack(&codes.f_tr()?)?),
        named(QZEROS, pack(&zero.f_tr()?)?),
        named(SCALES, scale.f_tr()?.f_to_kind(Kind::Half)?.f_contiguous()?),
    ])
}

/// `quantization_config`.
#[derive(Debug)]
struct Config {
    /// `None`: all input channels share a scale.
    group: Option<i64>,
    /// Layers whose name has one of these in it are in floating point.
    dense: Vec<String>,
}

impl Config {
    fn parse(file: &Path, value: &Value) -> Result<Self, ModelError> {
        let refuse = |field: &str, value: &Value, known: &str| ModelError::Unsupported {
            file: file.to_owned(),
            field: format!("quantization_config.{field}"),
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            known: known.to_owned(),
        };
        // AutoAWQ's own names before transformers'.
        let first = |names: &[&'static str]| {
            let found = names.iter().find_map(|name| Some((*name, value.get(name)?)));
            found.filter(|(_, value)| !value.is_null())
        };
        expect_known(file, value, &[&SETTINGS, &HISTORY])?;
        match first(&["version", "format", "checkpoint_format"]) {
            Some((_, version)) if version.as_str().is_some_and(|name| name.eq_ignore_ascii_case(GEMM)) => {}
            None => {}
            Some((name, version)) => return Err(refuse(name, version, GEMM)),
        }
        // The one of transformers' backends that stands for a layout.
        if let Some((name, backend)) = first(&["backend"])
            && backend == "llm-awq"
        {
            return Err(refuse(name, backend, "auto"));
        }
        match first(&["w_bit", "bits"]) {
            Some((_, bits)) if bits == 4 => {}
            None => {}
            Some((name, bits)) => return Err(refuse(name, bits, "4")),
        }
        match first(&["zero_point"]) {
            Some((name, zero)) if zero != true => return Err(refuse(name, zero, "true")),
            _ => {}
        }
        let group = match first(&["q_group_size", "group_size"]) {
            None => Some(128),
            Some((_, size)) if size == -1 => None,
            Some((name, size)) => match size.as_i64().filter(|size| *size > 0) {
                Some(size) => Some(size),
                None => return Err(refuse(name, size, "a positive number, -1")),
            },
        };
        let mut dense = vec![HEAD.to_owned()];
        if let Some((name, list)) = first(&["modules_to_not_convert"]) {
            let names =
                list.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
            let Some(Some(names)) = names else { return Err(refuse(name, list, "a list of names")) };
            dense.extend(names.into_iter().map(str::to_owned));
        }
        Ok(Self { group, dense })
    }
}

/// The layer `spec` of `checkpoint`; `None` where its `quantization_config` leaves it in floating point.
///
/// # Errors
///
/// Settings other than the above, tensors that are missing, or whose type or shape is not what config.json calls
/// for.
pub fn read_linear(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    config: &Value,
) -> Result<Option<QuantizedWeight>, ModelError> {
    let file = &checkpoint.config.quantization_file;
    let config = Config::parse(file, config)?;
    if config.dense.iter().any(|part| spec.name.contains(part)) {
        return Ok(None);
    }
    let (out_features, in_features) = (spec.out_features, spec.in_features);
    let group = config.group.unwrap_or(in_features);
    let wrong = |problem: String| ModelError::Quantization { file: file.clone(), problem };
    if in_features % group != 0 {
        return Err(wrong(format!(
            "`{}` has {in_features} input channels, which are not a multiple of the group size {group}",
            spec.name
        )));
    }
    let read = |part: &str, shape: [i64; 2], kind: Kind| {
        let name = format!("{}.{part}", spec.name);
        expect_tensor(checkpoint, &name, &shape, kind)?;
        checkpoint.tensor(&name)
    };
    let words = out_features / PER_WORD;
    let signed = |packed: Tensor| -> Result<Tensor, TchError> {
        unpack(&packed)?.f_tr()?.f_contiguous()?.f_to_kind(Kind::Int8)?.f_sub_scalar(packing::OFFSET)
    };
    let codes = Codes::Int4Asym {
        packed: packing::pack(&signed(read(QWEIGHT, [in_features, words], Kind::Int)?)?)?,
        scale: read(SCALES, [in_features / group, out_features], Kind::Half)?.f_tr()?.f_contiguous()?,
        zero: signed(read(QZEROS, [in_features / group, words], Kind::Int)?)?,
        group,
    };
    let bias = if spec.bias {
        let name = format!("{}.bias", spec.name);
        Some(checkpoint.float_tensor(&name, &[out_features], checkpoint.kind(&name)?, Device::Cpu)?)
    } else {
        None
    };
    let weight = QuantizedWeight::new(codes, bias, out_features, in_features);
    weight.map(Some).map_err(|error| wrong(format!("`{}`: {error}", spec.name)))
}

/// Packs codes, u8 [R, N] from 0 to 15 with N a multiple of 8, into i32 [R, N/8].
pub fn pack(codes: &Tensor) -> Result<Tensor, TchError> {
    let (rows, columns) = codes.size2()?;
    let order = Tensor::from_slice(&ORDER).f_to_device(codes.device())?;
    let nibbles = codes.f_reshape([rows, columns / PER_WORD, PER_WORD])?.f_index_select(2, &order)?;
    let pairs = nibbles.f_view([rows, columns / 2, 2])?;
    let high = pairs.f_select(2, 1)?.f_bitwise_left_shift_tensor_scalar(4)?;
    // Bytes in memory order are the word's bytes, lowest first, on every processor that libtorch runs on.
    pairs.f_select(2, 0)?.f_bitwise_or_tensor(&high)?.f_contiguous()?.f_view_dtype(Kind::Int)
}

/// The codes, u8 [R, N], of `packed`, i32 [R, N/8].
pub fn unpack(packed: &Tensor) -> Result<Tensor, TchError> {
    let (rows, words) = packed.size2()?;
    let bytes = packed.f_contiguous()?.f_view_dtype(Kind::Uint8)?;
    let nibbles =
        Tensor::f_stack(&[bytes.f_bitwise_and(15)?, bytes.f_bitwise_right_shift_tensor_scalar(4)?], 2)?;
    let mut places = [0; ORDER.len()];
    for (nibble, &channel) in ORDER.iter().enumerate() {
        places[channel as usize] = nibble as i64;
    }
    let places = Tensor::from_slice(&places).f_to_device(packed.device())?;
    let codes = nibbles.f_view([rows, words, PER_WORD])?.f_index_select(2, &places)?;
    codes.f_view([rows, words * PER_WORD])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nibbles_of_a_word_are_in_autoawqs_order() {
        let codes = Tensor::from_slice(&[0_u8, 1, 2, 3, 4, 5, 6, 15]).view([1, 8]);
        let packed = pack(&codes).unwrap();
        assert_eq!(packed.int64_value(&[0, 0]) as u32 as i32, 0xF531_6420_u32 as i32);
    }

    #[test]
    fn what_is_written_is_read_and_other_versions_are_refused_by_name() {
        let parse =
            |value: &Value| Config::parse(Path::new("config.json"), value).map_err(|error| error.to_string());
        let config = parse(&describe(64)).unwrap();
        assert_eq!((config.group, config.dense), (Some(64), vec![HEAD.to_owned()]));
        assert_eq!(parse(&json!({"w_bit": 4, "q_group_size": -1})).unwrap().group, None);
        for (key, value) in [
            ("version", json!("gemv")),
            ("version", json!("gemv_fast")),
            ("version", json!("marlin")),
            ("backend", json!("llm-awq")),
            ("rotation", json!("hadamard")),
            ("bits", json!(3)),
            ("zero_point", json!(false)),
            ("group_size", json!(0)),
            ("modules_to_not_convert", json!("lm_head")),
        ] {
            let mut config = describe(128);
            config[key] = value.clone();
            let error = parse(&config).unwrap_err();
            assert!(error.starts_with(&format!("config.json: `quantization_config.{key}: ")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn unpack_inverts_pack(rows in 1_i64..6, words in 1_i64..9, seed in any::<i64>()) {
            let _guard = tch::no_grad_guard();
            let _random = crate::torch::seeded(seed);
            let codes = Tensor::randint_low(0, 16, [rows, words * PER_WORD], (Kind::Uint8, tch::Device::Cpu));
            let packed = pack(&codes).unwrap();
            prop_assert_eq!(packed.size(), [rows, words]);
            prop_assert!(unpack(&packed).unwrap().equal(&codes));
        }
    }
}
