//! One file per node kind, and the table of them.

mod benchmark;
mod calibrate;
mod download;
mod evaluate;
mod quantize;
mod report;
mod sft;
mod sft_merge;

pub use benchmark::{Benchmark, Generation, Protocol};
pub use calibrate::{Calibrate, Extent};
pub use download::{Download, Dtype, Source};
pub use evaluate::{Bos, Candidates, EARLIER, Evaluate};
pub use quantize::{
    ActivationScales, Alpha, Awq, AwqFormat, BnbInt8, BnbNf4, ColumnOrder, Convention, Gptq, GptqFormat,
    GptqProfile, GptqScheme, Int8Dynamic, IntegerScheme, METHODS, Method, Outside, Propagate, Quantize, Rtn,
    ScaleRule, Smoothquant, Storage, W4A8Format, WeightRounding,
};
pub use report::{Document, HarnessTable, Report};
pub use sft::{LINEAR_NAMES, Lora, Sft};
pub use sft_merge::SftMerge;

use crate::KindSpec;

/// Every node kind, sorted by name.
pub static KINDS: &[KindSpec] = &[
    KindSpec::of::<Benchmark>(),
    KindSpec::of::<Calibrate>(),
    KindSpec::of::<Download>(),
    KindSpec::of::<Evaluate>(),
    KindSpec::of::<Quantize>(),
    KindSpec::of::<Report>(),
    KindSpec::of::<Sft>(),
    KindSpec::of::<SftMerge>(),
];

/// The kind called `name`.
pub fn find(name: &str) -> Option<&'static KindSpec> {
    KINDS.iter().find(|kind| kind.name == name)
}
