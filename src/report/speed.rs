//! All that was measured of models that have several benchmarks, as a table of a report.

use qpipe_nodes::results::BenchmarkResult;

use super::names::Named;
use super::{describe, format, generation};

const MIB: f64 = 1024.0 * 1024.0;

/// Table and legend; nothing where no model has more than one benchmark: the table of all rows has room for one.
pub(super) fn section(named: &Named<'_>) -> Vec<String> {
    if named.iter().all(|(_, row)| row.benchmarks.len() < 2) {
        return Vec::new();
    }
    let benchmarks = named.iter().flat_map(|(name, row)| row.benchmarks.iter().map(move |it| (name, it)));
    let rows: Vec<String> = benchmarks.map(|(name, benchmark)| line(name, benchmark)).collect();
    let table = format!(
        "| model | protocol | device | questions | time/question | p10 | p50 | p90 | tokens/s | peak MiB | weights MiB |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n{}",
        rows.join("\n")
    );
    let legend = "The table of all models has each one's first benchmark. *time/question*: the mean; *p10*, *p50*, *p90*: \
                  percentiles of it. \\*: other programs ran meanwhile.";
    vec![table, legend.to_owned()]
}

fn line(name: &str, benchmark: &BenchmarkResult) -> String {
    let cells = [
        format!("{name}{}", generation::mark(benchmark)),
        describe::protocol(benchmark.protocol).to_owned(),
        benchmark.device.clone(),
        benchmark.questions.to_string(),
        format::duration(benchmark.avg_time_s),
        format::duration(benchmark.time_p10_s),
        format::duration(benchmark.time_p50_s),
        format::duration(benchmark.time_p90_s),
        format::quantity(benchmark.tokens_per_s),
        format::quantity(benchmark.avg_peak_vram_mb),
        format::quantity(benchmark.weight_bytes as f64 / MIB),
    ];
    format!("| {} |", cells.join(" | "))
}
