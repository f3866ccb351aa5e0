//! SmoothQuant.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Method;
use super::outside::{Outside, Storage};
use crate::{ParamError, Reading};

/// SmoothQuant: moves the difficulty of rounding from activations to weights by a scale an input channel, which
/// goes into the norms and into q, k, v, gate and up; o and down are rounded as they are. Needs `calibration`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smoothquant {
    /// `W8A8`, or `W4A8`: 4-bit weights that stay 4-bit, int8 activations.
    pub scheme: IntegerScheme,
    /// Of W4A8: input channels that share a scale: 32, 64 or 128. Default 128.
    #[serde(default)]
    pub group_size: Option<u32>,
    /// How much of the difficulty the weights take, from 0 to 1, or `search`: the one of a grid (0, 0.05 … 1) with
    /// the smallest error of the layers' outputs on the calibration's samples, one for the model. Default 0.5, that of
    /// both references; models with large outliers want 0.8 and more, 4-bit weights less.
    #[serde(default)]
    pub alpha: Alpha,
    /// Whose statistics and arithmetic: `llmc`, llm-compressor's (range of the norm's output; the default), or
    /// `mit`, the authors' (largest magnitude).
    #[serde(default)]
    pub scale_rule: ScaleRule,
    /// How smoothed weights become codes: `rtn`, to the nearest (the default), or `gptq`, with llm-compressor's GPTQ on
    /// the smoothed inputs.
    #[serde(default)]
    pub rounding: WeightRounding,
    /// Of `rounding: gptq`: added to the diagonal of the second moments, as a share of its mean. Default 0.01.
    #[serde(default)]
    pub damping: Option<f64>,
    /// The activations' scales: `dynamic`, one a token, at run time (the default), or, of W8A8, `static`: one a layer,
    /// from the calibration.
    #[serde(default)]
    pub activations: ActivationScales,
    /// Of W4A8: `qpipe-w4a8`, 4.125 bits a weight (the default), or `int-quantized`, compressed-tensors' W4A8 for
    /// other programs, a byte a weight on disk.
    #[serde(default)]
    pub format: Option<W4A8Format>,
    /// The output projection: `keep`, in 16 or 32 bits (the default), or `int8`, a scale a row. Refused where the model has
    /// none of its own (`tie_word_embeddings`): there `embeddings` is both.
    #[serde(default)]
    pub lm_head: Storage,
    /// The embedding: `keep` (the default) or `int8`. One matrix in int8 where it is the output projection too.
    #[serde(default)]
    pub embeddings: Storage,
}

/// Schemes with int8 weights or less and int8 activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IntegerScheme {
    /// int8 weights, one scale an output channel.
    W8A8,
    /// int4 weights, one scale a group of input channels.
    W4A8,
}

/// See [`Smoothquant::scale_rule`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScaleRule {
    /// llm-compressor's.
    #[default]
    Llmc,
    /// The authors'.
    Mit,
}

/// See [`Smoothquant::rounding`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WeightRounding {
    /// To the nearest.
    #[default]
    Rtn,
    /// GPTQ.
    Gptq,
}

/// See [`Smoothquant::activations`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActivationScales {
    /// One a token.
    #[default]
    Dynamic,
    /// One a layer.
    Static,
}

/// See [`Smoothquant::format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum W4A8Format {
    /// docs/formats/qpipe-w4a8.md.
    QpipeW4a8,
    /// compressed-tensors.
    IntQuantized,
}

/// See [`Smoothquant::alpha`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Alpha {
    /// This one.
    Given(f64),
    /// The best of a grid.
    Search,
}

impl Default for Alpha {
    fn default() -> Self {
        Self::Given(0.5)
    }
}

impl TryFrom<Value> for Alpha {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match (value.as_f64(), value.as_str()) {
            (Some(number), _) => Ok(Self::Given(number)),
            (_, Some("search")) => Ok(Self::Search),
            _ => Err(format!("{value} is neither a number nor `search`")),
        }
    }
}

impl From<Alpha> for Value {
    fn from(alpha: Alpha) -> Self {
        match alpha {
            Alpha::Given(number) => Self::from(number),
            Alpha::Search => Self::from("search"),
        }
    }
}

impl JsonSchema for Alpha {
    fn schema_name() -> Cow<'static, str> {
        "Alpha".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"const": "search"}]})
    }
}

impl Smoothquant {
    /// Input channels that share a scale; `None` for one scale an output channel.
    pub fn group(&self) -> Option<u32> {
        match self.scheme {
            IntegerScheme::W8A8 => None,
            IntegerScheme::W4A8 => Some(self.group_size.unwrap_or(128)),
        }
    }

    /// The damping of GPTQ; `None` where weights are rounded to the nearest.
    pub fn gptq_damping(&self) -> Option<f64> {
        (self.rounding == WeightRounding::Gptq).then(|| self.damping.unwrap_or(0.01))
    }

    /// How W4A8 is stored; `None` for W8A8.
    pub fn w4a8_format(&self) -> Option<W4A8Format> {
        (self.scheme == IntegerScheme::W4A8).then(|| self.format.unwrap_or(W4A8Format::QpipeW4a8))
    }
}

impl Method for Smoothquant {
    const NAME: &'static str = "smoothquant";

    fn check(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        let is_w4a8 = self.scheme == IntegerScheme::W4A8;
        match self.group_size {
            Some(_) if !is_w4a8 => {
                errors.push(ParamError::value(
                    "group_size",
                    "W8A8 has one scale an output channel, not groups",
                ));
            }
            Some(size) if ![32, 64, 128].contains(&size) => {
                errors.push(ParamError::value("group_size", format!("{size} is not one of 32, 64 and 128")));
            }
            _ => {}
        }
        if let Alpha::Given(alpha) = self.alpha
            && !(0.0..=1.0).contains(&alpha)
        {
            errors.push(ParamError::value("alpha", format!("{alpha} is not between 0 and 1")));
        }
        match self.damping {
            Some(_) if self.rounding != WeightRounding::Gptq => {
                errors.push(ParamError::value("damping", "is for `rounding: gptq`"));
            }
            Some(damping) if !(0.0..1.0).contains(&damping) => {
                errors.push(ParamError::value("damping", format!("{damping} is not from 0 to below 1")));
            }
            _ => {}
        }
        if is_w4a8 && self.activations == ActivationScales::Static {
            errors.push(ParamError::value("activations", "W4A8 has `dynamic` activations only"));
        }
        if !is_w4a8 && self.format == Some(W4A8Format::QpipeW4a8) {
            errors.push(ParamError::value("format", "W8A8 is written as `int-quantized`"));
        }
        errors
    }

    fn completed(mut self) -> Self {
        self.group_size = self.group();
        self.damping = self.gptq_damping();
        self.format = Some(self.w4a8_format().unwrap_or(W4A8Format::IntQuantized));
        self
    }

    fn reads(&self) -> Reading {
        match self.rounding {
            WeightRounding::Rtn => Reading::Ranges,
            WeightRounding::Gptq => Reading::Moments,
        }
    }

    fn outside(&self) -> Outside {
        Outside { lm_head: self.lm_head, embeddings: self.embeddings }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(value: Value) -> Smoothquant {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_default_left_out_and_one_written_out_are_the_same() {
        let short = options(json!({"scheme": "W4A8"})).completed();
        let long = options(json!({
            "scheme": "W4A8", "group_size": 128, "alpha": 0.5, "scale_rule": "llmc", "rounding": "rtn",
            "activations": "dynamic", "format": "qpipe-w4a8",
        }));
        assert_eq!(serde_json::to_value(short).unwrap(), serde_json::to_value(long.completed()).unwrap());
    }

    #[test]
    fn alpha_is_a_number_or_the_word_search() {
        for (value, alpha) in [(json!(1), Alpha::Given(1.0)), (json!("search"), Alpha::Search)] {
            assert_eq!(options(json!({"scheme": "W8A8", "alpha": value})).alpha, alpha);
        }
        let error = serde_json::from_value::<Alpha>(json!("best")).unwrap_err().to_string();
        assert_eq!(error, "\"best\" is neither a number nor `search`");
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (value, key) in [
            (json!({"scheme": "W8A8", "group_size": 128}), "group_size"),
            (json!({"scheme": "W4A8", "group_size": 48}), "group_size"),
            (json!({"scheme": "W8A8", "alpha": 1.5}), "alpha"),
            (json!({"scheme": "W8A8", "damping": 0.01}), "damping"),
            (json!({"scheme": "W8A8", "rounding": "gptq", "damping": 2}), "damping"),
            (json!({"scheme": "W4A8", "activations": "static"}), "activations"),
            (json!({"scheme": "W8A8", "format": "qpipe-w4a8"}), "format"),
        ] {
            let errors = options(value.clone()).check();
            assert_eq!(errors.len(), 1, "{value}");
            assert_eq!(errors[0].path, [key]);
        }
    }
}
