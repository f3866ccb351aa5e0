//! What models took, as a table of a report.

use qpipe_nodes::results::{BenchmarkResult, EnergySource, GenerationSpeed};

use super::names::Named;
use super::{format, generation};

/// Heading and table; nothing where no device told.
pub(super) fn section(named: &Named<'_>) -> Vec<String> {
    let rows: Vec<String> =
        named.benchmarks().filter_map(|(name, benchmark)| line(&name, benchmark)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let table = format!(
        "| model | counter | J a question | J a token | J a token read | J a token written |\n\
         |---|---|---:|---:|---:|---:|\n{}",
        rows.join("\n")
    );
    let legend = "As the processor packages (RAPL) or the card (NVML) count: idling and other programs' work are in it; \\*: such \
                  programs ran when measuring began. *read*, *written*: tokens of prompts and of replies, by batch size.";
    vec!["## Energy".to_owned(), table, legend.to_owned()]
}

fn line(name: &str, benchmark: &BenchmarkResult) -> Option<String> {
    let energy = benchmark.energy?;
    let source = match energy.source {
        EnergySource::Rapl => "RAPL",
        EnergySource::Nvml => "NVML",
    };
    let batches = |value: fn(&GenerationSpeed) -> Option<f64>| {
        let each = benchmark.generation.iter().filter_map(|speed| Some((speed.batch, value(speed)?)));
        let each: Vec<String> =
            each.map(|(batch, joules)| format!("{} ({batch})", format::digits(joules))).collect();
        if each.is_empty() { "–".to_owned() } else { each.join(", ") }
    };
    let mark = generation::mark(benchmark);
    Some(format!(
        "| {name}{mark} | {source} | {} | {} | {} | {} |",
        format::digits(energy.joules_per_question),
        format::digits(energy.joules_per_token),
        batches(|speed| speed.prefill_joules_per_token),
        batches(|speed| speed.decode_joules_per_token),
    ))
}
