//! Random weights of every scheme, for tests and for measuring.

use tch::{Device, Kind, Tensor};

use crate::nf4::{self, Absmax};
use crate::weight::{Codes, KernelError, QuantizedWeight, Scheme};
use crate::{bitstream, packing};

/// Activations of this magnitude are outliers of LLM.int8(): bitsandbytes' default.
pub const THRESHOLD: f64 = 6.0;

/// A layer [`out_features`, `in_features`] on the CPU, with scales and maybe a bias in `kind`, from libtorch's generator.
///
/// # Errors
///
/// When the scheme's group does not divide K.
pub fn weight(
    scheme: Scheme,
    out_features: i64,
    in_features: i64,
    kind: Kind,
    has_bias: bool,
) -> Result<QuantizedWeight, KernelError> {
    let options = (kind, Device::Cpu);
    let bias = has_bias.then(|| Tensor::randn([out_features], options));
    let scale = |columns: i64| Tensor::rand([out_features, columns], options) * 0.02 + 0.001;
    let integers = |lowest: i64, highest: i64, columns: i64| {
        Tensor::randint_low(lowest, highest + 1, [out_features, columns], (Kind::Int8, Device::Cpu))
    };
    let int8 = || integers(-128, 127, in_features);
    let packed = || packing::pack(&integers(-8, 7, in_features));
    let codes = match scheme {
        Scheme::LlmInt8 => {
            let absmax = (scale(1) * 100.0).to_kind(Kind::Float).view([-1]);
            Codes::LlmInt8 { weight: int8(), absmax, threshold: THRESHOLD }
        }
        Scheme::Nf4 { block, nested } => nf4_codes(out_features * in_features, block, nested, kind),
        Scheme::W8A8 => Codes::Int8 { weight: int8(), scale: scale(1) },
        Scheme::W8A8Static => Codes::Int8Static {
            weight: int8(),
            scale: scale(1),
            input_scale: Tensor::full([1], 0.01, options),
        },
        Scheme::W8A16 => Codes::Int8A16 { weight: int8(), scale: scale(1) },
        Scheme::W8A8Torchao => Codes::Int8Torchao { weight: int8(), scale: scale(1) },
        Scheme::W4A16 { group } => {
            Codes::Int4 { packed: packed()?, scale: scale(in_features / group), group }
        }
        Scheme::W4A16Asym { group } => Codes::Int4Asym {
            packed: packed()?,
            scale: scale(in_features / group),
            zero: integers(-8, 7, in_features / group),
            group,
        },
        Scheme::WeightOnly { bits, group, asym } => {
            let unsigned = |columns: i64| {
                Tensor::randint_low(0, 1 << bits, [out_features, columns], (Kind::Uint8, Device::Cpu))
            };
            Codes::Bits {
                packed: bitstream::pack(&unsigned(in_features), bits)?,
                bits,
                scale: scale(in_features / group),
                zero: asym.then(|| unsigned(in_features / group)),
                group,
            }
        }
        Scheme::W4A8Float { group } => {
            Codes::Int4A8 { packed: packed()?, scale: scale(in_features / group), group }
        }
        Scheme::W4A8 { group } => {
            let groups = in_features / group;
            // With a scale of 16 the zero is 0; with 8 it is any code.
            let small = integers(1, 8, groups);
            let large = small.fmod(2.0).eq(0.0);
            Codes::Progressive {
                packed: packed()?,
                group_scale: small.where_self(&large.logical_not(), &small.full_like(16)),
                group_zero: integers(-8, 7, groups).masked_fill(&large, 0),
                channel_scale: scale(1),
                group,
            }
        }
    };
    QuantizedWeight::new(codes, bias, out_features, in_features)
}

/// `weights` weights of NF4.
pub fn nf4_codes(weights: i64, block: i64, nested: bool, compute: Kind) -> Codes {
    let floats = |count: i64| Tensor::rand([count], (Kind::Float, Device::Cpu)) * 0.1 + 0.001;
    let bytes = |count: i64| Tensor::randint(256, [count], (Kind::Uint8, Device::Cpu));
    let blocks = nf4::blocks(weights, block);
    let absmax = if nested {
        let scale = floats(nf4::blocks(blocks, nf4::NESTED_BLOCK));
        Absmax::Nested { code: bytes(blocks), map: floats(256), scale, offset: 0.03 }
    } else {
        Absmax::Plain(floats(blocks))
    };
    Codes::Nf4 { packed: bytes((weights + 1) / 2), absmax, block, compute }
}
