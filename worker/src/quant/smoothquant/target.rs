//! What smoothed weights become: codes under a scheme, in a format.

use qpipe_kernels::gptq::ZeroPoint;
use qpipe_nodes::kinds::{ActivationScales, Smoothquant, W4A8Format};
use serde_json::Value;
use tch::{Kind, TchError, Tensor};

use crate::model::decoder::HEAD;
use crate::model::formats::compressed_tensors::{self, StoredScheme, tensors};
use crate::model::formats::qpipe_w4a8;
use crate::quant::error::QuantizeError;
use crate::quant::gptq::{Factor, Rule, Scales, llmc_rule, solve};
use crate::quant::layers::Layer;
use crate::quant::method::{DYNAMIC_ACTIVATIONS, Linear};
use crate::quant::progressive;
use crate::quant::rtn::Rounding;

/// A scheme with int8 activations, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// int8 weights; activations have a scale a token.
    W8A8,
    /// int8 weights; activations have one scale.
    W8A8Static,
    /// int4 weights in compressed-tensors' format.
    W4A8 {
        /// Input channels that share a scale.
        group: i64,
    },
    /// int4 weights in qpipe's own format.
    Progressive {
        /// Input channels that share an integer scale.
        group: i64,
    },
}

impl Target {
    pub(super) fn of(options: &Smoothquant) -> Self {
        match (options.group().map(i64::from), options.w4a8_format()) {
            (Some(group), Some(W4A8Format::QpipeW4a8)) => Self::Progressive { group },
            (Some(group), _) => Self::W4A8 { group },
            (None, _) if options.activations == ActivationScales::Static => Self::W8A8Static,
            (None, _) => Self::W8A8,
        }
    }

    /// An error if `layer` cannot be rounded so.
    pub(super) fn check(self, layer: &Layer) -> Result<(), QuantizeError> {
        match self {
            Self::W8A8 | Self::W8A8Static => Rounding::Channel8,
            Self::W4A8 { group } | Self::Progressive { group } => Rounding::Group4 { group },
        }
        .check(layer)
    }

    /// The tensors of `linear`, rounded by GPTQ where there is a `factor`, else to the nearest codes. `largest`, f32
    /// `[K]`, is the largest magnitude of each channel of its input.
    pub(super) fn store(
        self,
        linear: &Linear,
        largest: &Tensor,
        factor: Option<&Factor>,
    ) -> Result<Stored, QuantizeError> {
        let (name, weight) = (&linear.layer.name, &linear.weight);
        let mut loss = None;
        let mut solved_codes = |rule: &Rule| -> Result<Option<Tensor>, TchError> {
            let Some(factor) = factor else { return Ok(None) };
            let solved = solve(weight, factor, rule)?;
            loss = Some(solved.loss);
            signed(&solved.codes, rule.bits).map(Some)
        };
        let rounding = match self {
            Self::W8A8 | Self::W8A8Static => Rounding::Channel8,
            Self::W4A8 { group } => Rounding::Group4 { group },
            Self::Progressive { group } => {
                let scales = progressive::Scales::of(weight, group)?;
                let codes = match solved_codes(&progressive_rule(&scales)?)? {
                    Some(codes) => codes,
                    None => scales.round(weight)?,
                };
                let tensors = qpipe_w4a8::store(name, &codes, scales.group, scales.zero, scales.channel)?;
                return Ok(Stored { tensors, loss });
            }
        };
        let mut rounded = rounding.round(&linear.layer.weight, weight)?;
        if factor.is_some() {
            let (bits, group) = (rounding.bits(), rounding.group());
            if let Some(codes) = solved_codes(&llmc_rule(weight, bits, group, true)?)? {
                rounded.codes = codes;
            }
        }
        let stored = self.stored().expect("all but progressive are compressed-tensors'");
        let mut stored = compressed_tensors::store(name, stored, &rounded.codes, rounded.scale)?;
        if self == Self::W8A8Static {
            let scale = input_scale(largest, linear.weight.kind())?;
            stored.push((format!("{name}.{}", tensors::INPUT_SCALE), scale));
        }
        Ok(Stored { tensors: stored, loss })
    }

    /// The values, in f32, that a smoothed `weight` [N, K] would be multiplied as.
    pub(super) fn value(self, weight: &Tensor) -> Result<Tensor, QuantizeError> {
        let rounding = match self {
            Self::W8A8 | Self::W8A8Static => Rounding::Channel8,
            Self::W4A8 { group } => Rounding::Group4 { group },
            Self::Progressive { group } => {
                let scales = progressive::Scales::of(weight, group)?;
                return Ok(scales.value(&scales.round(weight)?)?);
            }
        };
        let rounded = rounding.round("", weight)?;
        let (out_features, groups) = rounded.scale.size2()?;
        let codes = rounded.codes.f_view([out_features, groups, -1])?.f_to_kind(Kind::Float)?;
        Ok((codes * rounded.scale.f_unsqueeze(-1)?).f_view(weight.size().as_slice())?)
    }

    /// The scheme of compressed-tensors' formats.
    fn stored(self) -> Option<StoredScheme> {
        match self {
            Self::W8A8 => Some(StoredScheme::W8A8),
            Self::W8A8Static => Some(StoredScheme::W8A8Static),
            Self::W4A8 { group } => Some(StoredScheme::W4A8 { group: Some(group) }),
            Self::Progressive { .. } => None,
        }
    }

    /// `quantization_config`.
    pub(super) fn config(self) -> Value {
        match self {
            Self::Progressive { group } => qpipe_w4a8::describe(group, &[HEAD]),
            _ => compressed_tensors::describe(
                self.stored().expect("all but progressive are compressed-tensors'"),
                &[HEAD],
            ),
        }
    }

    /// The weights' scales, for the record.
    pub(super) fn scale_rule(self) -> &'static str {
        match self {
            Self::W8A8 | Self::W8A8Static => Rounding::Channel8.scale_rule(),
            Self::W4A8 { group } => Rounding::Group4 { group }.scale_rule(),
            Self::Progressive { .. } => {
                "largest magnitude of the channel / 112 in bf16, times the integer of the group with the least \
                 squared error"
            }
        }
    }

    /// The activations' scales, for the record.
    pub(super) fn activation_rule(self) -> &'static str {
        match self {
            Self::W8A8Static => "static: largest calibrated magnitude of the layer's input / 127.5",
            _ => DYNAMIC_ACTIVATIONS,
        }
    }
}

/// What a layer becomes.
pub(super) struct Stored {
    pub(super) tensors: Vec<(String, Tensor)>,
    /// GPTQ's, see [`crate::quant::gptq::Solved`].
    pub(super) loss: Option<f64>,
}

/// GPTQ on the grid of integer scales and zeros: codes as they are rounded to the nearest.
fn progressive_rule(scales: &progressive::Scales) -> Result<Rule, TchError> {
    Ok(Rule {
        bits: 4,
        is_signed: true,
        zero_point: ZeroPoint::AfterRounding,
        kind: Kind::Float,
        scales: Scales::Given { scale: scales.combined()?, zero: Some(scales.zero.f_to_kind(Kind::Float)?) },
        is_batched: true,
    })
}

/// Codes of `bits` bits from 0, u8, as signed ones, i8.
fn signed(codes: &Tensor, bits: u32) -> Result<Tensor, TchError> {
    codes.f_to_kind(Kind::Int16)?.f_sub_scalar(1_i64 << (bits - 1))?.f_to_kind(Kind::Int8)
}

/// The scale, `[1]` of type `kind`, of an input whose channels have the magnitudes `largest`, f32 `[K]`.
fn input_scale(largest: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    let largest = largest.f_amax([0].as_slice(), true)?.f_to_kind(kind)?;
    Ok(qpipe_kernels::symmetric::scales(&largest, 8))
}
