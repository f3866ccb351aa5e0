//! `qpipe doctor --kernels`.

use std::process::Command;

use qpipe_nodes::kernels::KernelLine;

use super::exit::Exit;
use super::failure::Failure;
use super::printer;
use crate::run::worker_path;

/// Measures the worker's kernels and prints a table: `x` is how many times faster than the layer in bfloat16.
pub(super) fn exec() -> Result<Exit, Failure> {
    let path = worker_path();
    let broken = |problem: String| {
        let message = format!("{}: {problem}", path.display());
        Failure::environment(message, Some("`qpipe doctor` says what is missing."))
    };
    let output = Command::new(&path).arg("kernels").output().map_err(|error| broken(error.to_string()))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(broken(log.lines().last().unwrap_or("it measured nothing").to_owned()));
    }
    let lines: Vec<KernelLine> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(|error| broken(error.to_string()))?;
    for of_device in lines.chunk_by(|one, next| one.device == next.device) {
        printer::out(table(of_device));
    }
    // Sources that do not compile for a card, above all.
    log.lines().for_each(printer::err);
    Ok(Exit::Done)
}

/// The lines of one device, the first of which is the layer in bfloat16. Ends with no line break.
fn table(lines: &[KernelLine]) -> String {
    let Some(baseline) = lines.first() else { return String::new() };
    let mut headings = vec!["scheme".to_owned(), "kernel".to_owned()];
    for (rows, _) in &baseline.seconds {
        headings
            .extend([if *rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }, "x".to_owned()]);
    }
    let mut rows = vec![headings];
    rows.extend(lines.iter().map(|line| cells(line, &baseline.seconds)));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0))
        .collect();
    let mut text = vec![title(baseline)];
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 | 1 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push(cells.collect::<Vec<_>>().join("  "));
    }
    text.join("\n")
}

/// `cpu (avx512-vnni): a layer of N x K = 3072 x 1024 in bfloat16`.
fn title(line: &KernelLine) -> String {
    let instructions = line.instructions.as_ref().map_or(String::new(), |name| format!(" ({name})"));
    let (out_features, in_features) = line.shape;
    format!("{}{instructions}: a layer of N x K = {out_features} x {in_features} in bfloat16", line.device)
}

fn cells(line: &KernelLine, baseline: &[(u32, f64)]) -> Vec<String> {
    let mut cells = vec![line.scheme.clone(), line.kernel.clone()];
    for ((_, seconds), (_, plain)) in line.seconds.iter().zip(baseline) {
        cells.extend([format!("{:.3} ms", 1e3 * seconds), format!("{:.2}x", plain / seconds)]);
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(scheme: &str, kernel: &str, seconds: [f64; 2]) -> KernelLine {
        KernelLine {
            device: "cpu".to_owned(),
            instructions: Some("avx512-vnni".to_owned()),
            shape: (3072, 1024),
            scheme: scheme.to_owned(),
            kernel: kernel.to_owned(),
            seconds: vec![(1, seconds[0]), (512, seconds[1])],
        }
    }

    #[test]
    fn columns_stay_apart_however_wide_their_figures_are() {
        let lines = [
            line("bfloat16", "libtorch", [0.001, 12.5]),
            line("weight-only 3 bits in groups", "a-kernel-with-a-name", [0.000_001, 1234.5678]),
        ];
        let expected = "\
cpu (avx512-vnni): a layer of N x K = 3072 x 1024 in bfloat16
scheme                        kernel                   1 row         x        512 rows      x
bfloat16                      libtorch              1.000 ms     1.00x    12500.000 ms  1.00x
weight-only 3 bits in groups  a-kernel-with-a-name  0.001 ms  1000.00x  1234567.800 ms  0.01x";
        assert_eq!(table(&lines), expected);
    }
}
