//! Rotary position embeddings (Su et al., 2021, arXiv 2104.09864), with linear and Llama 3 scaling. The
//! arithmetic follows `modeling_rope_utils.py` of transformers 5.17 operation by operation.

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::config::Fields;
use super::error::ModelError;

const KNOWN_TYPES: &str = "default, linear, llama3";
const DEFAULT_THETA: f64 = 10_000.0;

/// How frequencies are changed for contexts longer than those of pre-training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All are divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low ones are divided, high ones kept, those between interpolated (Llama 3.1).
    Llama3 {
        /// The divisor.
        factor: f64,
        /// Wavelengths above `original_positions / low_frequency_factor` are divided.
        low_frequency_factor: f64,
        /// Wavelengths below `original_positions / high_frequency_factor` are kept.
        high_frequency_factor: f64,
        /// The context of pre-training.
        original_positions: f64,
    },
}

/// The rotation's parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeParameters {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Change for long contexts.
    pub scaling: RopeScaling,
}

impl RopeParameters {
    /// From `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5). As in transformers a
    /// filled `rope_scaling` wins, and a `rope_theta` inside wins over the one outside.
    pub(super) fn from_fields(fields: &Fields<'_>, max_positions: i64) -> Result<Self, ModelError> {
        let outer_theta = fields.positive("rope_theta")?;
        refuse_partial(fields)?;
        for (field, prefix) in [("rope_scaling", "rope_scaling."), ("rope_parameters", "rope_parameters.")] {
            match fields.map.get(field) {
                None | Some(Value::Null) => {}
                Some(Value::Object(map)) if map.is_empty() => {}
                Some(Value::Object(map)) => {
                    let inner = Fields { file: fields.file, prefix, map };
                    return Self::from_dictionary(&inner, outer_theta, max_positions);
                }
                Some(other) => return Err(fields.wrong(field, format!("is {other}, expected an object"))),
            }
        }
        Ok(Self { theta: outer_theta.unwrap_or(DEFAULT_THETA), scaling: RopeScaling::None })
    }

    fn from_dictionary(
        fields: &Fields<'_>,
        outer_theta: Option<f64>,
        max_positions: i64,
    ) -> Result<Self, ModelError> {
        if let Some((layer_type, _)) = fields.map.iter().find(|(_, value)| value.is_object()) {
            return Err(fields.unsupported(layer_type, "{…}", "one rotation for all layers"));
        }
        refuse_partial(fields)?;
        let theta = fields.positive("rope_theta")?.or(outer_theta).unwrap_or(DEFAULT_THETA);
        let field = if fields.has("rope_type") { "rope_type" } else { "type" };
        let needed =
            |name: &str| fields.positive(name)?.ok_or_else(|| fields.wrong(name, "is missing".to_owned()));
        let scaling = match fields.text(field)?.unwrap_or("default") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: needed("factor")? },
            "llama3" => {
                let low_frequency_factor = needed("low_freq_factor")?;
                let high_frequency_factor = needed("high_freq_factor")?;
                if high_frequency_factor <= low_frequency_factor {
                    return Err(fields.wrong(
                        "high_freq_factor",
                        format!("is {high_frequency_factor}, expected more than low_freq_factor ({low_frequency_factor})"),
                    ));
                }
                RopeScaling::Llama3 {
                    factor: needed("factor")?,
                    low_frequency_factor,
                    high_frequency_factor,
                    original_positions: fields
                        .positive("original_max_position_embeddings")?
                        .unwrap_or(max_positions as f64),
                }
            }
            other => return Err(fields.unsupported(field, other, KNOWN_TYPES)),
        };
        Ok(Self { theta, scaling })
    }
}

fn refuse_partial(fields: &Fields<'_>) -> Result<(), ModelError> {
    match fields.positive("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => {
            Err(fields.unsupported("partial_rotary_factor", &factor.to_string(), "1"))
        }
        _ => Ok(()),
    }
}

/// Turns positions into rotations.
#[derive(Debug)]
pub struct RotaryEmbedding {
    /// f32 [head_dim / 2], radians a position.
    inverse_frequencies: Tensor,
}

impl RotaryEmbedding {
    /// For heads of width `head_dim`.
    pub fn new(parameters: &RopeParameters, head_dim: i64, device: Device) -> Self {
        let exponents = Tensor::arange_start_step(0, head_dim, 2, (Kind::Float, Device::Cpu)) / head_dim;
        let plain = Tensor::pow_scalar(parameters.theta, &exponents).reciprocal();
        let scaled = match parameters.scaling {
            RopeScaling::None => plain,
            RopeScaling::Linear { factor } => plain / factor,
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor,
                high_frequency_factor,
                original_positions,
            } => {
                let wavelengths = plain.reciprocal() * (2.0 * std::f64::consts::PI);
                let long = wavelengths.gt(original_positions / low_frequency_factor);
                let short = wavelengths.lt(original_positions / high_frequency_factor);
                let kept = (&plain / factor).where_self(&long, &plain);
                let smooth = (wavelengths.reciprocal() * original_positions - low_frequency_factor)
                    / (high_frequency_factor - low_frequency_factor);
                let between: Tensor = (1.0 - &smooth) * &kept / factor + &smooth * &kept;
                between.where_self(&long.logical_or(&short).logical_not(), &kept)
            }
        };
        Self { inverse_frequencies: scaled.to_device(device) }
    }

    /// The rotation at `positions` (i64 [B, T]), computed in f32 and rounded to `kind`.
    pub fn at(&self, positions: &Tensor, kind: Kind) -> Rotation {
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1) * &self.inverse_frequencies;
        let angles = angles.unsqueeze(1);
        Rotation { cos: angles.cos().to_kind(kind), sin: angles.sin().to_kind(kind) }
    }
}

/// Cosines and sines for one batch, [B, 1, T, head_dim / 2], shared by all layers and heads.
#[derive(Debug)]
pub struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Cosines and sines.
    pub(super) fn angles(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }

    /// Rotates the pairs (i, i + D/2) of `x` [B, heads, T, D].
    pub fn apply(&self, x: &Tensor) -> Tensor {
        qpipe_kernels::rotate(x, &self.cos, &self.sin)
    }
}
