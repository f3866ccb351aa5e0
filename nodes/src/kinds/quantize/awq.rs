//! AWQ.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Method;
use super::outside::{Outside, Storage};
use crate::{ParamError, Reading};

/// AWQ: 4-bit weights in groups, activations as they are. Input channels that carry large activations are scaled up
/// before rounding, by the scales of a grid that leave the smallest output error; ranges are clipped likewise. Needs
/// a `calibration`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Awq {
    /// 4.
    #[serde(default = "four")]
    pub bits: u32,
    /// Input channels that share a scale: 32, 64 or 128. Default 128.
    #[serde(default = "group_size")]
    pub group_size: u32,
    /// Whether groups have no zero point. Default false.
    #[serde(default)]
    pub symmetric: bool,
    /// Whether scales follow from the weights' magnitudes besides the activations'. Default true.
    #[serde(default = "yes")]
    pub duo_scaling: bool,
    /// Whether ranges are clipped where that leaves a smaller error (q and k are never clipped). Default true.
    #[serde(default = "yes")]
    pub clip: bool,
    /// `awq`, AutoAWQ's (the default), or `pack-quantized`, compressed-tensors' (the default where `symmetric`).
    #[serde(default)]
    pub format: Option<AwqFormat>,
    /// The output projection: `keep`, in 16 or 32 bits (the default), or `int8`, a scale a row. Refused where the model has
    /// none of its own (`tie_word_embeddings`): there `embeddings` is both.
    #[serde(default)]
    pub lm_head: Storage,
    /// The embedding: `keep` (the default) or `int8`. One matrix in int8 where it is the output projection too.
    #[serde(default)]
    pub embeddings: Storage,
}

/// See [`Awq::format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AwqFormat {
    /// AutoAWQ's `gemm`.
    Awq,
    /// compressed-tensors.
    PackQuantized,
}

fn four() -> u32 {
    4
}

fn group_size() -> u32 {
    128
}

fn yes() -> bool {
    true
}

impl Awq {
    /// How the checkpoint is written.
    pub fn format(&self) -> AwqFormat {
        self.format.unwrap_or(if self.symmetric { AwqFormat::PackQuantized } else { AwqFormat::Awq })
    }
}

impl Method for Awq {
    const NAME: &'static str = "awq";

    fn check(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        if self.bits != 4 {
            errors.push(ParamError::value("bits", format!("{} is not 4", self.bits)));
        }
        if ![32, 64, 128].contains(&self.group_size) {
            let message = format!("{} is not one of 32, 64 and 128", self.group_size);
            errors.push(ParamError::value("group_size", message));
        }
        if self.symmetric && self.format == Some(AwqFormat::Awq) {
            let error = ParamError::value("format", "`awq` always has zero points");
            errors.push(error.help("Set `format: pack-quantized`."));
        }
        if self.format() == AwqFormat::Awq {
            let help = "Set `format: pack-quantized`.";
            errors.extend(self.outside().refused("`format: awq` (AutoAWQ's `gemm`)", help));
        }
        errors
    }

    fn completed(mut self) -> Self {
        self.format = Some(self.format());
        self
    }

    fn reads(&self) -> Reading {
        Reading::Moments
    }

    fn outside(&self) -> Outside {
        Outside { lm_head: self.lm_head, embeddings: self.embeddings }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn options(value: Value) -> Awq {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_format_follows_from_the_zero_points() {
        assert_eq!(options(json!({})).completed().format, Some(AwqFormat::Awq));
        let symmetric = options(json!({"symmetric": true})).completed();
        assert_eq!(symmetric.format, Some(AwqFormat::PackQuantized));
    }

    #[test]
    fn compressed_tensors_has_a_place_for_int8_matrices_outside_the_blocks() {
        for format in [json!({"symmetric": true}), json!({"format": "pack-quantized"})] {
            let mut value = json!({"lm_head": "int8", "embeddings": "int8"});
            value.as_object_mut().unwrap().extend(format.as_object().unwrap().clone());
            assert!(options(value).check().is_empty());
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_key() {
        for (value, key) in [
            (json!({"bits": 3}), "bits"),
            (json!({"group_size": 96}), "group_size"),
            (json!({"symmetric": true, "format": "awq"}), "format"),
            (json!({"lm_head": "int8"}), "lm_head"),
            (json!({"embeddings": "int8", "format": "awq"}), "embeddings"),
        ] {
            let errors = options(value).check();
            assert_eq!(errors.len(), 1);
            assert_eq!(errors[0].path, [key]);
        }
    }
}
