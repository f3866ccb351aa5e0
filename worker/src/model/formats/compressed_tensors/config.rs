//! config.json's `quantization_config`: which layers are quantized, and how.
//!
//! Everything is checked and nothing is passed over: a setting that the kernels do not implement is refused
//! with its place and value, since ignoring it would give wrong numbers.

use std::path::Path;

use serde_json::{Value, json};

use super::METHOD;
use super::field::Field;
use super::pattern::{Class, Pattern};
use crate::model::error::ModelError;

pub(super) const INT_QUANTIZED: &str = "int-quantized";
pub(super) const PACK_QUANTIZED: &str = "pack-quantized";
/// A key of ours in `quantization_config`, which other readers pass over. `{"activations": "torchao"}`: dynamic int8
/// activations are rounded as torchao does it, not as compressed-tensors does.
pub(super) const QPIPE: &str = "qpipe";
pub(super) const TORCHAO: &str = "torchao";

/// Keys of `quantization_config`.
const KEYS: [&str; 9] = [
    "quant_method",
    "format",
    "config_groups",
    "ignore",
    "quantization_status",
    "global_compression_ratio",
    "version",
    "sparsity_config",
    QPIPE,
];
/// Keys of a group in `config_groups`.
const GROUP_KEYS: [&str; 4] = ["targets", "weights", "input_activations", "format"];

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredScheme {
    /// int8 weights, one scale an output channel; int8 activations, one scale a token, at run time.
    W8A8,
    /// [`Self::W8A8`] with one scale for all activations of a layer, found beforehand.
    W8A8Static,
    /// [`Self::W8A8`] with activations rounded as torchao does: see docs/formats/compressed-tensors.md.
    W8A8Torchao,
    /// int8 weights, a byte each, one scale an output channel; activations in floating point. compressed-tensors itself
    /// packs such weights ([`Self::WeightOnly`]).
    W8A16,
    /// Weights of few bits, packed; activations as they are.
    WeightOnly {
        /// From 2 to 8.
        bits: u32,
        /// Input channels that share a scale. `None`: all of them.
        group: Option<i64>,
        /// Whether there are zero points.
        asym: bool,
    },
    /// int4 weights, a byte each; int8 activations, one scale a token, at run time.
    W4A8 {
        /// Input channels that share a scale. `None`: all of them.
        group: Option<i64>,
    },
}

impl StoredScheme {
    /// int4 weights in groups of 128.
    const W4A16: Self = Self::WeightOnly { bits: 4, group: Some(128), asym: false };
    /// The same with zero points.
    const W4A16_ASYM: Self = Self::WeightOnly { bits: 4, group: Some(128), asym: true };
    /// int8 weights, one scale an output channel.
    pub const PACKED_W8A16: Self = Self::WeightOnly { bits: 8, group: None, asym: false };
}

/// Which layers are quantized, and how.
#[derive(Debug)]
pub struct QuantizationConfig {
    groups: Vec<Group>,
    ignore: Vec<Pattern>,
}

#[derive(Debug)]
struct Group {
    targets: Vec<Pattern>,
    scheme: StoredScheme,
}

impl QuantizationConfig {
    /// `value` is the `quantization_config` of the config.json at `file`.
    ///
    /// # Errors
    ///
    /// Whatever is not one of the two schemes, named by its place.
    pub fn parse(file: &Path, value: &Value) -> Result<Self, ModelError> {
        let root = Field { file, path: "quantization_config".to_owned(), value };
        root.get("quant_method").one_of(&[METHOD])?;
        root.get("quantization_status").absent_or(&["compressed"])?;
        for key in ["kv_cache_scheme", "transform_config"] {
            root.get(key).absent_or(&[])?;
        }
        root.only(&KEYS)?;
        let sparsity = root.get("sparsity_config");
        if !sparsity.is_absent() {
            sparsity.get("format").absent_or(&["dense"])?;
        }

        let qpipe = root.get(QPIPE);
        qpipe.only(&["activations"])?;
        let activations = qpipe.get("activations");
        activations.absent_or(&[TORCHAO])?;
        let is_torchao = !activations.is_absent();

        let groups = root.get("config_groups");
        let map = groups.value.as_object().filter(|map| !map.is_empty());
        let map = map.ok_or_else(|| groups.unsupported("an object with at least one group"))?;
        let mut config = Self {
            groups: map
                .keys()
                .map(|name| Group::parse(&root, &groups.get(name), name))
                .collect::<Result<_, _>>()?,
            ignore: Pattern::list(&root.get("ignore"))?,
        };
        if is_torchao {
            for group in config.groups.iter_mut().filter(|group| group.scheme == StoredScheme::W8A8) {
                group.scheme = StoredScheme::W8A8Torchao;
            }
        }
        Ok(config)
    }

    /// How the linear layer called `name` is stored; `None`: in floating point.
    pub fn scheme_of(&self, name: &str) -> Option<StoredScheme> {
        self.scheme(name, Class::Linear)
    }

    /// How the embedding called `name` is stored; `None`: in floating point.
    pub fn scheme_of_embedding(&self, name: &str) -> Option<StoredScheme> {
        self.scheme(name, Class::Embedding)
    }

    fn scheme(&self, name: &str, class: Class) -> Option<StoredScheme> {
        if self.ignore.iter().any(|pattern| pattern.matches(name, class)) {
            return None;
        }
        let targets =
            self.groups.iter().flat_map(|group| group.targets.iter().map(move |target| (target, group)));
        let matching = targets.filter(|(target, _)| target.matches(name, class));
        matching.min_by_key(|(target, _)| target.rank()).map(|(_, group)| group.scheme)
    }
}

impl Group {
    fn parse(root: &Field<'_>, group: &Field<'_>, name: &str) -> Result<Self, ModelError> {
        if group.value.is_array() {
            // A preset: its name, and the layers.
            let scheme = match name.to_uppercase().as_str() {
                "W8A8" | "INT8" => StoredScheme::W8A8,
                "W4A16" => StoredScheme::W4A16,
                "W4A16_ASYM" => StoredScheme::W4A16_ASYM,
                "W8A16" => StoredScheme::PACKED_W8A16,
                "W4A8" => StoredScheme::W4A8 { group: Some(128) },
                _ => {
                    let names = "a scheme, or a list under the name W8A8, W8A16, W4A16, W4A16_ASYM or W4A8";
                    return Err(group.unsupported(names));
                }
            };
            return Ok(Self { targets: Pattern::list(group)?, scheme });
        }
        let targets = Pattern::list(&group.get("targets"))?;
        group.get("output_activations").absent_or(&[])?;
        group.only(&GROUP_KEYS)?;
        let own = group.get("format");
        let format = if own.is_absent() { root.get("format") } else { own };
        let weights = group.get("weights");
        let inputs = group.get("input_activations");
        let scheme = match format.one_of(&[INT_QUANTIZED, PACK_QUANTIZED])? {
            INT_QUANTIZED if weights.get("num_bits").value == &json!(4) => {
                weights.expect_integers(4, false)?;
                inputs.expect_integers(8, true)?;
                inputs.strategy(&["token"])?;
                StoredScheme::W4A8 { group: weights.group()? }
            }
            INT_QUANTIZED if weights.get("num_bits").value == &json!(8) && inputs.is_absent() => {
                weights.expect_integers(8, false)?;
                weights.strategy(&["channel"])?;
                StoredScheme::W8A16
            }
            INT_QUANTIZED => {
                weights.expect_integers(8, false)?;
                weights.strategy(&["channel"])?;
                if inputs.get("dynamic").value == &Value::Bool(false) {
                    inputs.expect_integers(8, false)?;
                    inputs.strategy(&["tensor"])?;
                    StoredScheme::W8A8Static
                } else {
                    inputs.expect_integers(8, true)?;
                    inputs.strategy(&["token"])?;
                    StoredScheme::W8A8
                }
            }
            _ => {
                inputs.absent_or(&[])?;
                let bits = weights.bits()?;
                let asym = weights.get("symmetric").value == &Value::Bool(false);
                weights.expect_rounding(bits.into(), !asym, false)?;
                StoredScheme::WeightOnly { bits, group: weights.group()?, asym }
            }
        };
        Ok(Self { targets, scheme })
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
