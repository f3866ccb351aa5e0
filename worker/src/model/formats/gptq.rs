//! GPTQ's own format, written and read by GPTQModel, AutoGPTQ, transformers and vLLM.
//!
//! | tensor of a linear layer [N, K], b bits, g input channels a group | |
//! |---|---|
//! | `qweight` i32 [K b/32, N] | codes from 0: a stream of bits along K for each output channel |
//! | `qzeros` i32 [K/g, N b/32] | zero points: a stream of bits along N for each group; `gptq` (v1) stores them less one |
//! | `scales` f16 [K/g, N] | weight = (code - zero) · scale |
//! | `g_idx` i32 `[K]` | the group of each input channel; scattered after `desc_act` |
//!
//! config.json: `"quantization_config": {"quant_method": "gptq", "bits": b, "group_size": g or -1, "sym": …,
//! "desc_act": …, "checkpoint_format": "gptq" or "gptq_v2", …}`. Of 2, 4 and 8 bits v1 takes one off the packed words as whole
//! numbers, so one is added to whole words when it is read; only zero points of 0 would borrow, which v1 is not written
//! with. Codes of 3 bits cross from word to word: there it is taken off each code, 0 becoming 7 (`_shift_gptq_qzeros` of
//! GPTQModel 7.3).

use std::path::Path;

use qpipe_kernels::{Codes, QuantizedWeight, bitstream};
use serde_json::{Value, json};
use tch::{Device, Kind, TchError, Tensor};

use super::{expect_known, expect_tensor};
use crate::model::checkpoint::Checkpoint;
use crate::model::decoder::HEAD;
use crate::model::error::ModelError;
use crate::model::linear::LinearSpec;

/// `quant_method` in config.json.
pub const METHOD: &str = "gptq";
/// N and K are multiples of this: rows of the packed tensors are whole words at every width.
pub const MULTIPLE: i64 = 32;
/// Widths of codes.
const WIDTHS: [u32; 4] = [2, 3, 4, 8];

/// Settings that decide what a folder's numbers mean, under the names of GPTQModel, AutoGPTQ and their predecessors.
const SETTINGS: [&str; 15] = [
    "quant_method",
    "method",
    "bits",
    "wbits",
    "w_bit",
    "group_size",
    "groupsize",
    "q_group_size",
    "desc_act",
    "sym",
    "lm_head",
    "checkpoint_format",
    "format",
    "version",
    "pack_dtype",
];
/// Settings that only say how the codes were found, or how others are to load them.
const HISTORY: [&str; 24] = [
    "meta",
    "damp_percent",
    "damp_auto_increment",
    "true_sequential",
    "static_groups",
    "act_group_aware",
    "mse",
    "tokenizer",
    "dataset",
    "batch_size",
    "pad_token_id",
    "max_input_length",
    "model_seqlen",
    "cache_block_outputs",
    "block_name_to_quantize",
    "module_name_preceding_first_block",
    "modules_in_block_to_quantize",
    "model_name_or_path",
    "model_file_base_name",
    "backend",
    "use_exllama",
    "disable_exllama",
    "exllama_config",
    "use_cuda_fp16",
];

const QWEIGHT: &str = "qweight";
const QZEROS: &str = "qzeros";
const SCALES: &str = "scales";
const G_IDX: &str = "g_idx";

/// How zero points are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `gptq`: less one.
    V1,
    /// `gptq_v2`: as they are.
    V2,
}

impl Version {
    /// `checkpoint_format` in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "gptq",
            Self::V2 => "gptq_v2",
        }
    }
}

/// What `quantization_config` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// 2, 3, 4 or 8.
    pub bits: u32,
    /// `None`: all input channels share a scale.
    pub group: Option<i64>,
    /// Whether zero points are half of the range.
    pub is_symmetric: bool,
    /// Whether `g_idx` scatters groups (`desc_act`).
    pub scatters_groups: bool,
    /// How zero points are stored.
    pub version: Version,
    /// The damping that was asked for; for the record.
    pub damping: f64,
}

/// The `quantization_config` of a checkpoint whose linear layers, all but the output projection, are stored so: what
/// GPTQModel 7.3 writes and others read of it.
pub fn describe(config: &Config) -> Value {
    json!({
        "quant_method": METHOD,
        "method": METHOD,
        "bits": config.bits,
        "group_size": config.group.unwrap_or(-1),
        "desc_act": config.scatters_groups,
        "sym": config.is_symmetric,
        "lm_head": false,
        "checkpoint_format": config.version.name(),
        "format": config.version.name(),
        "pack_dtype": "int32",
        "meta": {
            "quantizer": [concat!("qpipe:", env!("CARGO_PKG_VERSION"))],
            "damp_percent": config.damping,
        },
    })
}

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

/// The tensors of the layer `name`. N and K are multiples of [`MULTIPLE`].
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
fn shifted(zeros: &Tensor, bits: u32, count: i64, by: i64) -> Result<Tensor, TchError> {
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

impl Config {
    fn parse(file: &Path, value: &Value) -> Result<Self, ModelError> {
        let refuse = |field: &str, value: &Value, known: &str| ModelError::Unsupported {
            file: file.to_owned(),
            field: format!("quantization_config.{field}"),
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            known: known.to_owned(),
        };
        // AutoGPTQ and its predecessors had other names.
        let first = |names: &[&'static str]| {
            let found = names.iter().find_map(|name| Some((*name, value.get(name)?)));
            found.filter(|(_, value)| !value.is_null())
        };
        let bits = match first(&["bits", "wbits", "w_bit"]) {
            None => 4,
            Some((name, bits)) => {
                let found = WIDTHS.into_iter().find(|width| bits == width);
                found.ok_or_else(|| refuse(name, bits, "2, 3, 4, 8"))?
            }
        };
        let group = match first(&["group_size", "groupsize", "q_group_size"]) {
            None => Some(128),
            Some((_, size)) if size == -1 => None,
            Some((name, size)) => match size.as_i64().filter(|size| *size > 0) {
                Some(size) => Some(size),
                None => return Err(refuse(name, size, "a positive number, -1")),
            },
        };
        let version = match first(&["checkpoint_format", "format", "version"]) {
            None => Version::V1,
            Some((_, name)) if name == "gptq" => Version::V1,
            Some((_, name)) if name == "gptq_v2" => Version::V2,
            Some((name, version)) => return Err(refuse(name, version, "gptq, gptq_v2")),
        };
        if let Some((name, words)) = first(&["pack_dtype"])
            && words != "int32"
        {
            return Err(refuse(name, words, "int32"));
        }
        expect_known(file, value, &[&SETTINGS, &HISTORY])?;
        let is_true = |names: &[&'static str]| first(names).is_some_and(|(_, value)| value == true);
        if is_true(&["lm_head"]) {
            return Err(refuse("lm_head", &json!(true), "false"));
        }
        let damping = value.pointer("/meta/damp_percent").and_then(Value::as_f64).unwrap_or_default();
        Ok(Self {
            bits,
            group,
            is_symmetric: first(&["sym"]).is_none_or(|(_, value)| value == true),
            scatters_groups: is_true(&["desc_act"]),
            version,
            damping,
        })
    }
}

/// The layer `spec` of `checkpoint`; `None` for the output projection, which is in floating point.
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
    if spec.name == HEAD {
        return Ok(None);
    }
    let (out_features, in_features) = (spec.out_features, spec.in_features);
    let group = config.group.unwrap_or(in_features);
    let wrong = |problem: String| ModelError::Quantization { file: file.clone(), problem };
    for (what, count, divisor) in [
        ("input channels, which are not a multiple of the group size", in_features, group),
        ("input channels, which are not a multiple of", in_features, MULTIPLE),
        ("output channels, which are not a multiple of", out_features, MULTIPLE),
    ] {
        if count % divisor != 0 {
            return Err(wrong(format!("`{}` has {count} {what} {divisor}", spec.name)));
        }
    }
    let read = |part: &str, shape: &[i64], kind: Kind| {
        let name = format!("{}.{part}", spec.name);
        expect_tensor(checkpoint, &name, shape, kind)?;
        checkpoint.tensor(&name)
    };
    let bits = config.bits;
    let words = |count: i64| bitstream::words(count, bits);
    let groups = in_features / group;
    let zeros = read(QZEROS, &[groups, words(out_features)], Kind::Int)?;
    let zeros = match config.version {
        Version::V1 => shifted(&zeros, bits, out_features, 1)?,
        Version::V2 => zeros,
    };
    let zero = bitstream::unpack(&zeros, bits, out_features)?.f_tr()?.f_contiguous()?;
    let half = 1_i64 << (bits - 1);
    let is_symmetric = bool::try_from(zero.f_eq(half)?.f_all()?)?;
    let packed = read(QWEIGHT, &[words(in_features), out_features], Kind::Int)?.f_tr()?.f_contiguous()?;
    let scale = format!("{}.{SCALES}", spec.name);
    let scale =
        checkpoint.float_tensor(&scale, &[groups, out_features], checkpoint.kind(&scale)?, Device::Cpu)?;
    let order = match checkpoint.has(&format!("{}.{G_IDX}", spec.name)) {
        true => input_order(&read(G_IDX, &[in_features], Kind::Int)?, group)
            .map_err(|problem| wrong(format!("`{}.{G_IDX}`: {problem}", spec.name)))?,
        false => None,
    };
    let packed = match &order {
        None => packed,
        Some(order) => {
            let codes = bitstream::unpack(&packed, bits, in_features)?.f_index_select(1, order)?;
            bitstream::pack(&codes, bits)?
        }
    };
    let zero = (!is_symmetric).then_some(zero);
    let codes = Codes::weight_only(packed, bits, scale.f_tr()?.f_contiguous()?, zero, group)?;
    let bias = if spec.bias {
        let name = format!("{}.bias", spec.name);
        Some(checkpoint.float_tensor(&name, &[out_features], checkpoint.kind(&name)?, Device::Cpu)?)
    } else {
        None
    };
    let weight =
        QuantizedWeight::new(codes, bias, out_features, in_features).and_then(|weight| match order {
            Some(order) => weight.with_input_order(order),
            None => Ok(weight),
        });
    weight.map(Some).map_err(|error| wrong(format!("`{}`: {error}", spec.name)))
}

/// The input channels, i64 `[K]`, group after group; `None` where they stand so already.
fn input_order(group_of: &Tensor, group: i64) -> Result<Option<Tensor>, String> {
    let wrong = |error: TchError| error.to_string();
    let sorted = || -> Result<(Tensor, Tensor), TchError> {
        let in_features = group_of.size()[0];
        let neighbours = Tensor::f_arange(in_features, (Kind::Int, Device::Cpu))?
            .f_divide_scalar_mode(group, "floor")?
            .f_to_kind(Kind::Int)?;
        Ok((neighbours, group_of.f_argsort_stable(true, 0, false)?))
    };
    let (neighbours, order) = sorted().map_err(wrong)?;
    if group_of.equal(&neighbours) {
        return Ok(None);
    }
    let arranged = group_of.f_index_select(0, &order).map_err(wrong)?;
    if arranged.equal(&neighbours) {
        return Ok(Some(order));
    }
    Err(format!("its groups have not {group} input channels each"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        bits: 4,
        group: Some(128),
        is_symmetric: true,
        scatters_groups: false,
        version: Version::V1,
        damping: 0.05,
    };

    fn parse(value: &Value) -> Result<Config, String> {
        Config::parse(Path::new("config.json"), value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read() {
        for bits in WIDTHS {
            for version in [Version::V1, Version::V2] {
                for group in [None, Some(32)] {
                    let config = Config { bits, version, group, scatters_groups: true, ..CONFIG };
                    assert_eq!(parse(&describe(&config)).unwrap(), config);
                }
            }
        }
    }

    #[test]
    fn older_names_are_known_and_other_settings_are_refused_by_name() {
        let old = json!({"wbits": 3, "groupsize": -1, "sym": false});
        let config = parse(&old).unwrap();
        assert_eq!((config.bits, config.group, config.version), (3, None, Version::V1));
        for (key, value) in [
            ("bits", json!(5)),
            ("group_size", json!(0)),
            ("checkpoint_format", json!("marlin")),
            ("pack_dtype", json!("int16")),
            ("dynamic", json!({"-:.*down.*": {}})),
            ("lm_head", json!(true)),
            ("rotation", json!("hadamard")),
            ("is_marlin_format", json!(true)),
        ] {
            let mut config = describe(&CONFIG);
            config[key] = value;
            let error = parse(&config).unwrap_err();
            assert!(error.starts_with(&format!("config.json: `quantization_config.{key}: ")), "{error}");
        }
    }

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

    #[test]
    fn scattered_groups_are_brought_together_and_uneven_ones_refused() {
        let order = input_order(&Tensor::from_slice(&[1_i32, 0, 1, 0]), 2).unwrap().unwrap();
        assert_eq!(Vec::<i64>::try_from(order).unwrap(), [1, 3, 0, 2]);
        assert!(input_order(&Tensor::from_slice(&[0_i32, 0, 1, 1]), 2).unwrap().is_none());
        let error = input_order(&Tensor::from_slice(&[0_i32, 0, 0, 1]), 2).unwrap_err();
        assert_eq!(error, "its groups have not 2 input channels each");
    }
}
