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
    let mut baseline: &[(u32, f64)] = &[];
    let mut device = "";
    for line in &lines {
        if line.device != device {
            device = &line.device;
            baseline = &line.seconds;
            printer::out(heading(line));
        }
        printer::out(row(line, baseline));
    }
    // Sources that do not compile for a card, above all.
    log.lines().for_each(printer::err);
    Ok(Exit::Done)
}

fn heading(line: &KernelLine) -> String {
    let rows = line.seconds.iter().map(|(rows, _)| match rows {
        1 => format!("{:>10} {:>6}", "1 row", "x"),
        rows => format!("{:>10} {:>6}", format!("{rows} rows"), "x"),
    });
    format!("{:24} {:24}{}", line.device, "kernel", rows.collect::<String>())
}

fn row(line: &KernelLine, baseline: &[(u32, f64)]) -> String {
    let cells = line
        .seconds
        .iter()
        .zip(baseline)
        .map(|((_, seconds), (_, plain))| format!("{:>7.3} ms {:>5.2}x", 1e3 * seconds, plain / seconds));
    format!("{:24} {:24}{}", line.scheme, line.kernel, cells.collect::<String>())
}
