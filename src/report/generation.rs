//! How fast models read prompts and write, as a table of a report.

use qpipe_nodes::results::{BenchmarkResult, GenerationSpeed, Roofline};

use super::format;
use super::names::Named;

/// Where other programs kept more than this part of the cores busy, a measurement is marked.
const BUSY: f64 = 0.1;

/// How somebody measures again.
pub(super) const AGAIN: &str = "`qpipe run FILE --force NODE` measures again";

/// Whether other programs ran just before it was measured, or meanwhile.
pub(super) fn is_busy(benchmark: &BenchmarkResult) -> bool {
    [benchmark.busy_before, benchmark.busy_meanwhile].into_iter().flatten().any(|busy| busy > BUSY)
}

/// What then stands behind the model's name.
pub(super) fn mark(benchmark: &BenchmarkResult) -> &'static str {
    if is_busy(benchmark) { " \\*" } else { "" }
}

/// Heading, table and bounds; nothing where it was not measured.
pub(super) fn section(named: &Named<'_>) -> Vec<String> {
    let mut table = String::from(
        "| model | batch | first token | prefill tokens/s | of matmul | decode tokens/s | of bandwidth | step p50 | p90 | p99 | peak MiB |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    );
    let mut bounds: Vec<(String, Vec<String>)> = Vec::new();
    for (name, benchmark) in named.benchmarks().filter(|(_, it)| !it.generation.is_empty()) {
        let mark = mark(benchmark);
        for speed in &benchmark.generation {
            table.push_str(&format!("\n| {name}{mark} | {} |", line(speed)));
        }
        let Some(bound) = benchmark.roofline.as_ref().map(bound) else { continue };
        let name = format!("**{name}**");
        match bounds.iter_mut().find(|(other, _)| *other == bound) {
            Some((_, names)) => names.push(name),
            None => bounds.push((bound, vec![name])),
        }
    }
    if !table.contains("\n| ") {
        return Vec::new();
    }
    let bounds: Vec<String> =
        bounds.into_iter().map(|(bound, names)| format!("{bound} ({})", names.join(", "))).collect();
    let at_best = match bounds.as_slice() {
        [] => String::new(),
        bounds => format!("Measured at best: {}.", bounds.join("; ")),
    };
    let speeds = named.benchmarks().flat_map(|(_, it)| &it.generation);
    let mut shapes: Vec<String> =
        speeds.map(|speed| format!("{} by {}", tokens(speed.prompt), tokens(speed.new))).collect();
    shapes.sort();
    shapes.dedup();
    let shape = format!("Prompts are read and continued: {}. ", shapes.join(", "));
    let legend = format!(
        "{shape}Medians. `of matmul`: the operations of the linear layers beside what this device multiplies at best; `of \
         bandwidth`: the bytes of the weights beside what it copies at best. \\*: other programs ran meanwhile. {at_best}"
    );
    vec!["## Reading and writing".to_owned(), table, legend.trim_end().to_owned()]
}

fn tokens(count: u32) -> String {
    format::plural(count.into(), "token")
}

fn line(speed: &GenerationSpeed) -> String {
    [
        speed.batch.to_string(),
        format::duration(speed.time_to_first_token_s),
        format::quantity(speed.prefill_tokens_per_s),
        format!("{} %", format::percent(speed.prefill_of_matmul)),
        format::quantity(speed.decode_tokens_per_s),
        format!("{} %", format::percent(speed.decode_of_bandwidth)),
        format::duration(speed.step_p50_s),
        format::duration(speed.step_p90_s),
        format::duration(speed.step_p99_s),
        format::quantity(speed.peak_mb),
    ]
    .join(" | ")
}

fn bound(roofline: &Roofline) -> String {
    format!(
        "{:.1} GB/s, {:.0} GFLOP/s in {}",
        roofline.copy_bytes_per_s / 1e9,
        roofline.matmul_flops / 1e9,
        roofline.matmul_dtype
    )
}
