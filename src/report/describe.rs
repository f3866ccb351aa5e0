//! Settings of an evaluation or a benchmark in words.

use std::collections::BTreeSet;

use qpipe_nodes::kinds::{Bos, Candidates, Protocol};
use qpipe_nodes::results::{BenchmarkResult, Quantization};
use serde_json::Value;

use super::format;

/// The word for `protocol` in `results.json`.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Sequential => "sequential",
        Protocol::Batched => "batched",
    }
}

/// How `protocol` runs the questions.
pub(super) fn protocol_meaning(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Sequential => "batch 1, one forward a candidate, tokenizing included",
        Protocol::Batched => "the shared prompt once, its candidates on it, many questions a batch",
    }
}

/// What `candidates` scores.
pub(super) fn candidates(candidates: Candidates) -> &'static str {
    match candidates {
        Candidates::Letters => "the letters of the choices",
        Candidates::Text => "the texts of the choices",
    }
}

/// What `bos` does.
pub(super) fn bos(bos: Bos) -> &'static str {
    match bos {
        Bos::Tokenizer => "a beginning-of-sequence token as the tokenizer sets it",
        Bos::Always => "a beginning-of-sequence token",
        Bos::Never => "no beginning-of-sequence token",
    }
}

/// The different values among `values`, in order, joined by "or".
pub(super) fn distinct(values: impl Iterator<Item = String>) -> String {
    let values: BTreeSet<String> = values.collect();
    values.into_iter().collect::<Vec<_>>().join(" or ")
}

/// How a benchmark was run.
pub(super) fn setting(benchmark: &BenchmarkResult) -> String {
    format!(
        "protocol `{}` ({}), {}, {} on {} ({})",
        protocol(benchmark.protocol),
        protocol_meaning(benchmark.protocol),
        format::plural(benchmark.questions, "question"),
        format::plural(benchmark.threads.into(), "thread"),
        benchmark.device,
        benchmark.hardware,
    )
}

/// What tells `benchmark` from the others of its model: its protocol, and what else they differ in.
pub(super) fn among(several: &[BenchmarkResult], benchmark: &BenchmarkResult) -> String {
    let others = || several.iter().filter(|other| other.protocol == benchmark.protocol);
    let mut parts = vec![protocol(benchmark.protocol).to_owned()];
    if others().any(|other| other.device != benchmark.device) {
        parts.push(benchmark.device.clone());
    }
    if others().any(|other| other.dtype != benchmark.dtype) {
        parts.push(benchmark.dtype.clone());
    }
    if others().any(|other| other.threads != benchmark.threads) {
        parts.push(format::plural(benchmark.threads.into(), "thread"));
    }
    if others().any(|other| other.questions != benchmark.questions) {
        parts.push(format::plural(benchmark.questions, "question"));
    }
    parts.join(", ")
}

/// How a model was quantized: the method, then what decides its numbers.
pub(super) fn quantization(quantization: &Quantization) -> String {
    let mut parts = vec![format!("`{}`", quantization.method)];
    for (name, value) in &quantization.settings {
        let name = name.replace('_', " ");
        match value {
            Value::Null => {}
            Value::String(text) => parts.push(format!("{name}: {text}")),
            other => parts.push(format!("{name}: {other}")),
        }
    }
    match quantization.fallbacks.as_slice() {
        [] => {}
        fallbacks => parts.push(format!(
            "rounded to nearest after all: {}",
            fallbacks.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        )),
    }
    parts.join("; ")
}

/// Whether two benchmarks can be set in relation: one protocol, one machine, as many questions.
pub(super) fn same_setting(a: &BenchmarkResult, b: &BenchmarkResult) -> bool {
    (a.protocol, &a.device, &a.hardware, a.threads, a.questions)
        == (b.protocol, &b.device, &b.hardware, b.threads, b.questions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_quantization_names_its_settings_and_its_fallbacks() {
        let how = Quantization {
            method: "gptq".to_owned(),
            settings: [
                ("bits".to_owned(), json!(4)),
                ("order".to_owned(), Value::Null),
                ("scale_rule".to_owned(), json!("largest magnitude / 7.5")),
            ]
            .into(),
            fallbacks: vec!["model.layers.0.mlp.up_proj".to_owned()],
        };
        assert_eq!(
            quantization(&how),
            "`gptq`; bits: 4; scale rule: largest magnitude / 7.5; rounded to nearest after all: \
             `model.layers.0.mlp.up_proj`"
        );
    }
}
