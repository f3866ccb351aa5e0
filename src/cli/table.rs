//! The table that every run ends with.

use std::fmt::Write;

use super::size;
use crate::run::{Status, Summary};

/// Cached nodes are listed one by one up to this many; a sweep's table shows what happened.
const LISTED: usize = 60;

/// node, status, time, why.
pub(super) fn run(summary: &Summary) -> String {
    let cached = summary.count(Status::Cached);
    let brief = summary.nodes.len() > LISTED;
    let shown: Vec<_> = summary.nodes.iter().filter(|row| !(brief && row.status == Status::Cached)).collect();
    let width = shown.iter().map(|row| row.node.chars().count()).max().unwrap_or(0).max(4);
    let mut text = String::new();
    if !shown.is_empty() {
        let _ = writeln!(text, "{:width$}  {:8} {:>10}  why", "node", "status", "time");
    }
    for row in shown {
        let time = if row.seconds > 0.0 { size::seconds(row.seconds) } else { String::new() };
        let line = format!("{:width$}  {:8} {time:>10}  {}", row.node, row.status.word(), row.reason);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if brief && cached > 0 {
        let _ = writeln!(text, "{cached} nodes cached");
    }
    let _ = write!(
        text,
        "{}: {} ran, {cached} cached, {} failed, {} skipped in {} (run {})",
        summary.status,
        summary.count(Status::Ran),
        summary.count(Status::Failed),
        summary.count(Status::Skipped),
        size::seconds(summary.seconds),
        summary.run,
    );
    text
}
