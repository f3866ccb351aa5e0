//! config.json's `quantization_config`: which layers are quantized, and how.
//!
//! Everything is checked and nothing is passed over: a setting that the kernels do not implement is refused
//! with its place and value, since ignoring it would give wrong numbers.

use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::METHOD;
use crate::model::error::ModelError;

/// The version whose layout is read and written.
const VERSION: &str = "0.19.0";
const INT_QUANTIZED: &str = "int-quantized";
const PACK_QUANTIZED: &str = "pack-quantized";
/// A key of ours in `quantization_config`, which other readers pass over. `{"activations": "torchao"}`: dynamic int8
/// activations are rounded as torchao does it, not as compressed-tensors does.
const QPIPE: &str = "qpipe";
const TORCHAO: &str = "torchao";

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
/// Keys of `weights` and of `input_activations`; an observer only says how the range was found.
const ARGUMENT_KEYS: [&str; 10] = [
    "num_bits",
    "type",
    "symmetric",
    "group_size",
    "strategy",
    "dynamic",
    "actorder",
    "zp_dtype",
    "observer",
    "observer_kwargs",
];

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

/// A layer's name, a regular expression after `re:`, or a class of layers.
#[derive(Debug)]
enum Pattern {
    Name(String),
    Regex(Regex),
    /// `Linear`.
    EveryLinear,
    /// `Embedding`.
    EveryEmbedding,
    /// The base class of both.
    Every,
}

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Linear,
    Embedding,
}

impl Pattern {
    fn parse(field: &Field<'_>) -> Result<Self, ModelError> {
        let text = field.value.as_str().ok_or_else(|| field.unsupported("a string"))?;
        match text.strip_prefix("re:") {
            // Python's re.match: from the beginning, to anywhere.
            Some(pattern) => Regex::new(&format!("^(?:{pattern})")).map(Self::Regex).map_err(|_| {
                field.unsupported("regular expressions without look-around and back-references")
            }),
            None if text == "Linear" => Ok(Self::EveryLinear),
            None if text == "Embedding" => Ok(Self::EveryEmbedding),
            None if text == "Module" => Ok(Self::Every),
            None => Ok(Self::Name(text.to_owned())),
        }
    }

    fn matches(&self, name: &str, class: Class) -> bool {
        match self {
            Self::Name(exact) => exact == name,
            Self::Regex(regex) => regex.is_match(name),
            Self::EveryLinear => class == Class::Linear,
            Self::EveryEmbedding => class == Class::Embedding,
            Self::Every => true,
        }
    }

    /// A name comes before an expression, an expression before a class, as in compressed-tensors'
    /// `match_targets`.
    fn rank(&self) -> u8 {
        match self {
            Self::Name(_) => 0,
            Self::Regex(_) => 1,
            Self::EveryLinear | Self::EveryEmbedding | Self::Every => 2,
        }
    }
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
            ignore: root.get("ignore").patterns()?,
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
            return Ok(Self { targets: group.patterns()?, scheme });
        }
        let targets = group.get("targets").patterns()?;
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

/// A value and where it stands.
struct Field<'a> {
    file: &'a Path,
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// The value under `key`; null where there is none.
    fn get(&self, key: &str) -> Field<'a> {
        static NULL: Value = Value::Null;
        Field {
            file: self.file,
            path: format!("{}.{key}", self.path),
            value: self.value.get(key).unwrap_or(&NULL),
        }
    }

    /// Null, missing, or an empty object.
    fn is_absent(&self) -> bool {
        self.value.is_null() || self.value.as_object().is_some_and(Map::is_empty)
    }

    fn unsupported(&self, known: &str) -> ModelError {
        ModelError::Unsupported {
            file: self.file.to_owned(),
            field: self.path.clone(),
            value: self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned),
            known: known.to_owned(),
        }
    }

    /// An error unless it is absent or an object in which no keys but the `known` have values.
    fn only(&self, known: &[&str]) -> Result<(), ModelError> {
        if self.is_absent() {
            return Ok(());
        }
        let object = self.value.as_object().ok_or_else(|| self.unsupported("an object"))?;
        let mut unknown = object.keys().filter(|key| !known.contains(&key.as_str()));
        match unknown.find(|key| !self.get(key).is_absent()) {
            Some(key) => Err(self.get(key).unsupported(&known.join(", "))),
            None => Ok(()),
        }
    }

    /// The text that it holds, one of `known`; upper and lower case are the same.
    fn one_of<'k>(&self, known: &[&'k str]) -> Result<&'k str, ModelError> {
        let text = self.value.as_str().unwrap_or_default();
        let found = known.iter().find(|name| name.eq_ignore_ascii_case(text));
        found.copied().ok_or_else(|| self.unsupported(&known.join(", ")))
    }

    /// An error unless it is absent or one of `known`.
    fn absent_or(&self, known: &[&str]) -> Result<(), ModelError> {
        if self.is_absent() {
            return Ok(());
        }
        if known.is_empty() {
            return Err(self.unsupported("null"));
        }
        self.one_of(known).map(|_| ())
    }

    fn patterns(&self) -> Result<Vec<Pattern>, ModelError> {
        let list = match self.value {
            Value::Null => return Ok(Vec::new()),
            Value::Array(list) => list,
            _ => return Err(self.unsupported("a list of names")),
        };
        let entries = list.iter().enumerate();
        entries
            .map(|(index, value)| Field { file: self.file, path: format!("{}[{index}]", self.path), value })
            .map(|field| Pattern::parse(&field))
            .collect()
    }

    /// An error unless these are the arguments of a symmetric rounding to integers of `bits` bits, at run
    /// time or not, with nothing besides.
    fn expect_integers(&self, bits: u64, dynamic: bool) -> Result<(), ModelError> {
        self.expect_rounding(bits, true, dynamic)
    }

    /// The same, symmetric or not.
    fn expect_rounding(&self, bits: u64, symmetric: bool, dynamic: bool) -> Result<(), ModelError> {
        if self.is_absent() {
            return Err(self.unsupported(&format!("{bits}-bit integers")));
        }
        let expect = |key: &str, default: Value, expected: Value| {
            let field = self.get(key);
            let found = if field.value.is_null() { &default } else { field.value };
            if *found == expected { Ok(()) } else { Err(field.unsupported(&expected.to_string())) }
        };
        expect("num_bits", json!(8), json!(bits))?;
        self.get("type").absent_or(&["int"])?;
        expect("symmetric", json!(true), json!(symmetric))?;
        expect("dynamic", json!(false), json!(dynamic))?;
        self.get("zp_dtype").absent_or(&["torch.int8"])?;
        for key in ["block_structure", "scale_dtype"] {
            self.get(key).absent_or(&[])?;
        }
        self.only(&ARGUMENT_KEYS)?;
        // `weight` and its other name only say in which order GPTQ went through the columns.
        let order = self.get("actorder");
        if order.value != &Value::Bool(false) {
            order.absent_or(&["weight", "static"])?;
        }
        Ok(())
    }

    /// The width of packed weights.
    fn bits(&self) -> Result<u32, ModelError> {
        let bits = self.get("num_bits");
        if bits.value.is_null() {
            return Ok(8);
        }
        let known = bits.value.as_u64().and_then(|bits| u32::try_from(bits).ok());
        known.filter(|bits| (2..=8).contains(bits)).ok_or_else(|| bits.unsupported("2 to 8"))
    }

    /// The strategy, which may be left to be told from the group size.
    fn strategy(&self, known: &[&str]) -> Result<String, ModelError> {
        let strategy = self.get("strategy");
        if !strategy.value.is_null() {
            return strategy.one_of(known).map(str::to_owned);
        }
        let inferred = match self.get("group_size").value.as_i64() {
            None => "tensor",
            Some(-1) => "channel",
            Some(_) => "group",
        };
        let found = known.iter().find(|name| **name == inferred);
        found.map(|name| (*name).to_owned()).ok_or_else(|| strategy.unsupported(&known.join(", ")))
    }

    /// Input channels that share a scale; `None`: all of them.
    fn group(&self) -> Result<Option<i64>, ModelError> {
        match self.strategy(&["group", "channel"])?.as_str() {
            "group" => self.group_size().map(Some),
            _ => Ok(None),
        }
    }

    fn group_size(&self) -> Result<i64, ModelError> {
        let size = self.get("group_size");
        size.value.as_i64().filter(|size| *size > 0).ok_or_else(|| size.unsupported("a positive number"))
    }
}

/// The `quantization_config` of a checkpoint whose linear layers, all but `ignore`, are stored as `scheme`: the
/// very object that compressed-tensors 0.19.0 writes, and our key `qpipe` where that says too little.
pub fn describe(scheme: StoredScheme, ignore: &[&str]) -> Value {
    let weights = |bits: u32, group: Option<i64>| {
        let strategy = if group.is_some() { "group" } else { "channel" };
        arguments(bits, strategy, group, false, Some("memoryless_minmax"))
    };
    let each_token = || arguments(8, "token", None, true, None);
    let (format, weights, inputs) = match scheme {
        StoredScheme::W8A8 | StoredScheme::W8A8Torchao => (INT_QUANTIZED, weights(8, None), each_token()),
        StoredScheme::W8A8Static => {
            (INT_QUANTIZED, weights(8, None), arguments(8, "tensor", None, false, Some("static_minmax")))
        }
        StoredScheme::W8A16 => (INT_QUANTIZED, weights(8, None), Value::Null),
        StoredScheme::WeightOnly { bits, group, asym } => {
            let mut weights = weights(bits, group);
            if asym {
                weights["symmetric"] = json!(false);
                weights["zp_dtype"] = json!("torch.int8");
            }
            (PACK_QUANTIZED, weights, Value::Null)
        }
        StoredScheme::W4A8 { group } => (INT_QUANTIZED, weights(4, group), each_token()),
    };
    let mut config = json!({
        "quant_method": METHOD,
        "version": VERSION,
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "ignore": ignore,
        "kv_cache_scheme": null,
        "sparsity_config": {},
        "transform_config": {},
        "config_groups": {
            "group_0": {
                "format": format,
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": inputs,
                "output_activations": null,
            }
        },
    });
    if scheme == StoredScheme::W8A8Torchao {
        config[QPIPE] = json!({ "activations": TORCHAO });
    }
    config
}

fn arguments(bits: u32, strategy: &str, group: Option<i64>, dynamic: bool, observer: Option<&str>) -> Value {
    json!({
        "num_bits": bits,
        "type": "int",
        "symmetric": true,
        "strategy": strategy,
        "group_size": group,
        "block_structure": null,
        "dynamic": dynamic,
        "actorder": null,
        "scale_dtype": null,
        "zp_dtype": null,
        "observer": observer,
        "observer_kwargs": {},
    })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
