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

mod config;
mod read;
mod write;

pub use config::{Config, Version, describe};
pub use read::read_linear;
pub use write::{Weight, store};

/// `quant_method` in config.json.
pub const METHOD: &str = "gptq";
/// N and K are multiples of this: rows of the packed tensors are whole words at every width.
pub const MULTIPLE: i64 = 32;

const QWEIGHT: &str = "qweight";
const QZEROS: &str = "qzeros";
const SCALES: &str = "scales";
const G_IDX: &str = "g_idx";
