//! int8 weights and activations ("int8 dynamic").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Method;
use super::outside::{Outside, Storage};
use crate::{ParamError, Sensitivity};

/// W8A8: int8 weights with a scale an output channel, rounded to nearest; int8 activations with a scale a token,
/// computed at run time. Written as compressed-tensors (`int-quantized`).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Int8Dynamic {
    /// Whose rounding: `llmc`, llm-compressor's (the default, the same as `method: rtn, scheme: W8A8`), or `torchao`,
    /// that of its `Int8DynamicActivationInt8WeightConfig`. Scales are the same, largest magnitude / 127.5 in the
    /// weights' type; llm-compressor divides in that type, torchao multiplies with the reciprocal in f32, so that of
    /// bf16 codes one in thirteen differs. It is the rule for activations too: qpipe reads from config.json that a
    /// checkpoint is torchao's; other readers pass over that and round its activations as compressed-tensors does.
    #[serde(default)]
    pub convention: Convention,
    /// The output projection: `keep`, in 16 or 32 bits (the default), or `int8`, a scale a row. Refused where the model has
    /// none of its own (`tie_word_embeddings`): there `embeddings` is both.
    #[serde(default)]
    pub lm_head: Storage,
    /// The embedding: `keep` (the default) or `int8`. One matrix in int8 where it is the output projection too.
    #[serde(default)]
    pub embeddings: Storage,
}

/// See [`Int8Dynamic::convention`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Convention {
    /// llm-compressor's.
    #[default]
    Llmc,
    /// torchao's.
    Torchao,
}

impl Method for Int8Dynamic {
    const NAME: &'static str = "int8-dynamic";

    fn check(&self) -> Vec<ParamError> {
        Vec::new()
    }

    fn outside(&self) -> Outside {
        Outside { lm_head: self.lm_head, embeddings: self.embeddings }
    }

    /// Rounding is element-wise: the same bytes on every device.
    fn sensitivity(&self) -> Sensitivity {
        Sensitivity::Portable
    }
}
