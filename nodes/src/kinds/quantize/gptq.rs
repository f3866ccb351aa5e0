//! GPTQ.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Method;
use super::outside::{Outside, Storage};
use crate::{ParamError, Reading};

/// GPTQ: weights are rounded column by column, and the error of each is made good by the columns behind it, as the
/// second moments of the inputs tell. Needs `calibration`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gptq {
    /// A preset in place of `bits` and `group_size`: `W4A16` (groups of 128), `W8A16` (one scale a channel), or
    /// `W8A8` (one scale a channel, int8 activations at run time).
    #[serde(default)]
    pub scheme: Option<GptqScheme>,
    /// 2, 3, 4 or 8. Default 4.
    #[serde(default)]
    pub bits: Option<u32>,
    /// Input channels that share a scale: 32, 64, 128, or -1: all of an output channel. Default 128.
    #[serde(default)]
    pub group_size: Option<i32>,
    /// Whether groups have no zero point. Default true.
    #[serde(default)]
    pub symmetric: Option<bool>,
    /// Whose arithmetic and defaults: `llmc`, llm-compressor's (scales from the original weights, in their type), or
    /// `gptqmodel`, GPTQModel's (scales of a group when its first column is reached, in float32). Default `llmc`.
    #[serde(default)]
    pub profile: GptqProfile,
    /// In which order columns are rounded. Default: `weight` for `llmc`; for `gptqmodel` `act_group_aware`, and `none`
    /// where there are no groups.
    #[serde(default)]
    pub order: Option<ColumnOrder>,
    /// Of `gptqmodel`: whether all scales come from the original weights. Always so for `llmc`.
    #[serde(default)]
    pub static_groups: Option<bool>,
    /// Added to the diagonal of the second moments, as a share of its mean: from 0 to below 1. Default 0.01 for
    /// `llmc`, 0.05 for `gptqmodel`. Raised where the factorization fails.
    #[serde(default)]
    pub damping: Option<f64>,
    /// On whose outputs a layer is calibrated: `none`, those of the unquantized model, from the calibration; or
    /// `quantized`, those of the quantized layers before it, as both references do.
    #[serde(default)]
    pub propagate: Propagate,
    /// `pack-quantized`, compressed-tensors' (the default of `llmc`; W8A8 is `int-quantized`), `gptq`, or `gptq_v2`
    /// (the default of `gptqmodel`: `gptq` without zero points, `gptq_v2` with them).
    #[serde(default)]
    pub format: Option<GptqFormat>,
    /// The output projection: `keep`, in 16 or 32 bits (the default), or `int8`, a scale a row. Refused where the model has
    /// none of its own (`tie_word_embeddings`): there `embeddings` is both.
    #[serde(default)]
    pub lm_head: Storage,
    /// The embedding: `keep` (the default) or `int8`. One matrix in int8 where it is the output projection too.
    #[serde(default)]
    pub embeddings: Storage,
}

/// See [`Gptq::scheme`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GptqScheme {
    /// int4 weights in groups of 128.
    W4A16,
    /// int8 weights.
    W8A16,
    /// int8 weights and activations.
    W8A8,
}

/// See [`Gptq::profile`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GptqProfile {
    /// llm-compressor 0.14.
    #[default]
    Llmc,
    /// GPTQModel 7.3.
    Gptqmodel,
}

/// See [`Gptq::order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColumnOrder {
    /// As they stand.
    None,
    /// Largest second moment first, each column with the scale of its place: llm-compressor's `weight`, also called
    /// `static`.
    #[serde(alias = "static")]
    Weight,
    /// Largest second moment first; groups are made of neighbours in that order, unless `static_groups`.
    DescAct,
    /// Groups by their largest second moment, and columns inside them (Gafni et al., 2025, arXiv 2505.14638).
    ActGroupAware,
}

/// See [`Gptq::propagate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Propagate {
    /// The unquantized model's outputs.
    #[default]
    None,
    /// The quantized layers' outputs.
    Quantized,
}

/// See [`Gptq::format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GptqFormat {
    /// compressed-tensors.
    #[serde(rename = "pack-quantized")]
    PackQuantized,
    /// compressed-tensors, of W8A8.
    #[serde(rename = "int-quantized")]
    IntQuantized,
    /// GPTQ's own, zero points less one.
    #[serde(rename = "gptq")]
    Gptq,
    /// GPTQ's own.
    #[serde(rename = "gptq_v2")]
    GptqV2,
}

impl Gptq {
    /// Bits of a code.
    pub fn bits(&self) -> u32 {
        self.bits.unwrap_or(match self.scheme {
            Some(GptqScheme::W8A16 | GptqScheme::W8A8) => 8,
            Some(GptqScheme::W4A16) | None => 4,
        })
    }

    /// Input channels that share a scale; `None` for one scale an output channel.
    pub fn group(&self) -> Option<u32> {
        let preset = if matches!(self.scheme, Some(GptqScheme::W8A16 | GptqScheme::W8A8)) { -1 } else { 128 };
        u32::try_from(self.group_size.unwrap_or(preset)).ok()
    }

    /// Whether there are no zero points.
    pub fn symmetric(&self) -> bool {
        self.symmetric.unwrap_or(true)
    }

    /// Whether activations are int8 at run time.
    pub fn quantizes_activations(&self) -> bool {
        self.scheme == Some(GptqScheme::W8A8)
    }

    /// In which order columns are rounded.
    pub fn order(&self) -> ColumnOrder {
        self.order.unwrap_or(match (self.profile, self.group()) {
            (GptqProfile::Llmc, _) => ColumnOrder::Weight,
            (GptqProfile::Gptqmodel, Some(_)) => ColumnOrder::ActGroupAware,
            (GptqProfile::Gptqmodel, None) => ColumnOrder::None,
        })
    }

    /// Whether all scales come from the original weights.
    pub fn static_groups(&self) -> bool {
        self.static_groups.unwrap_or(self.profile == GptqProfile::Llmc)
    }

    /// What is added to the diagonal first, as a share of its mean.
    pub fn damping(&self) -> f64 {
        self.damping.unwrap_or(match self.profile {
            GptqProfile::Llmc => 0.01,
            GptqProfile::Gptqmodel => 0.05,
        })
    }

    /// How the checkpoint is written.
    pub fn format(&self) -> GptqFormat {
        self.format.unwrap_or(match (self.profile, self.symmetric()) {
            _ if self.quantizes_activations() => GptqFormat::IntQuantized,
            (GptqProfile::Llmc, _) => GptqFormat::PackQuantized,
            (GptqProfile::Gptqmodel, true) => GptqFormat::Gptq,
            (GptqProfile::Gptqmodel, false) => GptqFormat::GptqV2,
        })
    }

    /// Whether a group's channels do not stand side by side in the file.
    pub fn scatters_groups(&self) -> bool {
        self.order() == ColumnOrder::DescAct && !self.static_groups() && self.group().is_some()
    }

    fn check_numbers(&self, errors: &mut Vec<ParamError>) {
        if let Some(bits) = self.bits
            && ![2, 3, 4, 8].contains(&bits)
        {
            errors.push(ParamError::value("bits", format!("{bits} is not one of 2, 3, 4 and 8")));
        }
        if let Some(size) = self.group_size
            && ![-1, 32, 64, 128].contains(&size)
        {
            errors.push(ParamError::value("group_size", format!("{size} is not one of 32, 64, 128 and -1")));
        }
        let preset = Self { bits: None, group_size: None, ..self.clone() };
        if let Some(scheme) = self.scheme {
            let name = format!("{scheme:?}");
            if self.bits.is_some() && self.bits() != preset.bits() {
                let message = format!("{} contradicts `scheme: {name}`", self.bits());
                errors.push(ParamError::value("bits", message));
            }
            if scheme != GptqScheme::W4A16 && self.group().is_some() {
                let message = format!("`scheme: {name}` has one scale an output channel, not groups");
                errors.push(ParamError::value("group_size", message));
            }
        }
        if let Some(damping) = self.damping
            && !(0.0..1.0).contains(&damping)
        {
            let message = format!("{damping} is not from 0 to below 1");
            errors.push(ParamError::value("damping", message));
        }
    }

    fn check_order(&self, errors: &mut Vec<ParamError>) {
        let is_llmc = self.profile == GptqProfile::Llmc;
        match self.order() {
            order @ (ColumnOrder::DescAct | ColumnOrder::ActGroupAware) if is_llmc => {
                let name = if order == ColumnOrder::DescAct { "desc_act" } else { "act_group_aware" };
                let error = ParamError::value("order", format!("`{name}` needs `profile: gptqmodel`"));
                errors.push(error.help("`llmc` has `weight` and `none`."));
            }
            ColumnOrder::Weight if !is_llmc => {
                let error = ParamError::value("order", "`weight` needs `profile: llmc`");
                errors.push(error.help("GPTQModel has it as `order: desc_act` with `static_groups: true`."));
            }
            ColumnOrder::ActGroupAware if self.group().is_none() => {
                errors.push(ParamError::value("order", "`act_group_aware` needs groups"));
            }
            ColumnOrder::ActGroupAware if self.static_groups() => {
                // GPTQModel takes the scales of another group then.
                let error = ParamError::value("static_groups", "`act_group_aware` has no static groups");
                errors.push(error.help("Set `order: desc_act`."));
            }
            _ => {}
        }
        if is_llmc && self.static_groups == Some(false) {
            let error = ParamError::value("static_groups", "`llmc` always has static groups");
            errors.push(error.help("Set `profile: gptqmodel`."));
        }
    }

    fn check_format(&self, errors: &mut Vec<ParamError>) {
        let mut refuse = |message: &str, help: &str| {
            errors.push(ParamError::value("format", message).help(help));
        };
        let is_own = matches!(self.format(), GptqFormat::Gptq | GptqFormat::GptqV2);
        if self.quantizes_activations() && self.format() != GptqFormat::IntQuantized {
            refuse("W8A8 is written as `int-quantized`", "Leave `format` out.");
        } else if !self.quantizes_activations() && self.format() == GptqFormat::IntQuantized {
            refuse("`int-quantized` is for int8 activations", "Set `scheme: W8A8`, or leave `format` out.");
        } else if self.format() == GptqFormat::Gptq && !self.symmetric() {
            refuse("`gptq` cannot hold a zero point of 0", "Set `format: gptq_v2`.");
        } else if !is_own && self.scatters_groups() {
            refuse(
                "compressed-tensors has no place for the scattered groups of `order: desc_act`",
                "Set `static_groups: true`, or `format: gptq`.",
            );
        }
        if is_own {
            let help = "Set `format: pack-quantized`.";
            errors.extend(self.outside().refused("GPTQ's own format", help));
        }
        if self.quantizes_activations() && !self.symmetric() {
            errors.push(ParamError::value("symmetric", "W8A8 has no zero points"));
        }
    }
}

impl Method for Gptq {
    const NAME: &'static str = "gptq";

    fn check(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        self.check_numbers(&mut errors);
        self.check_order(&mut errors);
        self.check_format(&mut errors);
        errors
    }

    fn completed(mut self) -> Self {
        self.bits = Some(self.bits());
        self.group_size = Some(self.group().map_or(-1, |group| group as i32));
        self.symmetric = Some(self.symmetric());
        self.order = Some(self.order());
        self.static_groups = Some(self.static_groups());
        self.damping = Some(self.damping());
        self.format = Some(self.format());
        // Weights only: what is left of the preset is in the numbers.
        self.scheme = self.scheme.filter(|scheme| *scheme == GptqScheme::W8A8);
        self
    }

    fn reads(&self) -> Reading {
        match self.propagate {
            Propagate::None => Reading::Moments,
            Propagate::Quantized => Reading::Samples,
        }
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

    fn options(value: Value) -> Gptq {
        serde_json::from_value(value).unwrap()
    }

    fn completed(value: Value) -> Value {
        serde_json::to_value(options(value).completed()).unwrap()
    }

    #[test]
    fn a_default_left_out_and_one_written_out_are_the_same() {
        assert_eq!(
            completed(json!({})),
            json!({
                "scheme": null, "bits": 4, "group_size": 128, "symmetric": true, "profile": "llmc",
                "order": "weight", "static_groups": true, "damping": 0.01, "propagate": "none",
                "format": "pack-quantized", "lm_head": "keep", "embeddings": "keep",
            })
        );
        assert_eq!(completed(json!({"scheme": "W4A16"})), completed(json!({})));
        assert_eq!(
            completed(json!({"profile": "gptqmodel", "symmetric": false})),
            json!({
                "scheme": null, "bits": 4, "group_size": 128, "symmetric": false, "profile": "gptqmodel",
                "order": "act_group_aware", "static_groups": false, "damping": 0.05, "propagate": "none",
                "format": "gptq_v2", "lm_head": "keep", "embeddings": "keep",
            })
        );
        assert_eq!(completed(json!({"scheme": "W8A8"}))["format"], "int-quantized");
        assert_eq!(completed(json!({"scheme": "W8A16"})), completed(json!({"bits": 8, "group_size": -1})));
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_its_key() {
        for (value, key) in [
            (json!({"bits": 5}), "bits"),
            (json!({"scheme": "W4A16", "bits": 8}), "bits"),
            (json!({"group_size": 96}), "group_size"),
            (json!({"scheme": "W8A8", "group_size": 128}), "group_size"),
            (json!({"damping": 1.0}), "damping"),
            (json!({"order": "desc_act"}), "order"),
            (json!({"profile": "gptqmodel", "order": "weight"}), "order"),
            (json!({"profile": "gptqmodel", "order": "act_group_aware", "group_size": -1}), "order"),
            (json!({"static_groups": false}), "static_groups"),
            (json!({"profile": "gptqmodel", "static_groups": true}), "static_groups"),
            (json!({"format": "gptq", "lm_head": "int8"}), "lm_head"),
            (json!({"format": "gptq", "symmetric": false}), "format"),
            (json!({"format": "int-quantized"}), "format"),
            (json!({"scheme": "W8A8", "format": "gptq"}), "format"),
            (json!({"scheme": "W8A8", "symmetric": false}), "symmetric"),
            (json!({"profile": "gptqmodel", "order": "desc_act", "format": "pack-quantized"}), "format"),
        ] {
            let errors = options(value.clone()).check();
            assert_eq!(errors.len(), 1, "{value}");
            assert_eq!(errors[0].path, [key], "{value}");
        }
    }

    #[test]
    fn samples_are_enough_where_the_quantized_layers_are_run() {
        assert_eq!(options(json!({})).reads(), Reading::Moments);
        assert_eq!(options(json!({"propagate": "quantized"})).reads(), Reading::Samples);
    }
}
