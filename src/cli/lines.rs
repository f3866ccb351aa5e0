//! A run as plain lines: logs, pipes, `-v`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use qpipe_nodes::protocol::Level;

use super::{printer, size};
use crate::run::{Event, Observer, Status};

/// A long node says how far it is this often.
const EVERY: Duration = Duration::from_secs(10);

/// Prints a line for what happens; progress now and then.
pub(super) struct Lines {
    progress: HashMap<String, Instant>,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { progress: HashMap::new() }
    }
}

impl Observer for Lines {
    fn on(&mut self, event: &Event) {
        match event {
            Event::RunStarted { run, pipeline, nodes, cached, .. } => {
                printer::err(format!("{pipeline}: {nodes} nodes, {cached} cached (run {run})"));
            }
            Event::NodeStarted { node, reason, .. } => {
                self.progress.insert(node.clone(), Instant::now());
                printer::err(format!("{node}: runs ({reason})"));
            }
            Event::NodeWaiting { node, holder } => printer::err(format!("{node}: waits for {holder}")),
            Event::Progress { node, done, total, unit, note } => {
                let Some(last) = self.progress.get_mut(node) else { return };
                if last.elapsed() >= EVERY {
                    *last = Instant::now();
                    printer::err(format!("{node}: {}", amount(*done, *total, unit, note.as_deref())));
                }
            }
            Event::Log { node, level, message } => {
                if *level != Level::Debug {
                    printer::err(format!("{node}: {message}"));
                }
            }
            Event::NodeFinished { status: Status::Cached, reason, .. } if reason.is_empty() => {}
            Event::NodeFinished { node, status, seconds, reason, help, log, .. } => {
                printer::err(finished(node, *status, *seconds, reason, help.as_deref(), log));
            }
            Event::RunFinished { .. } => {}
        }
    }
}

/// How far a node is: `120/300 steps, loss 2.31`.
pub(super) fn amount(done: u64, total: u64, unit: &str, note: Option<&str>) -> String {
    let count = match (unit, total) {
        ("bytes", 0) => size::bytes(done),
        ("bytes", total) => format!("{} of {}", size::bytes(done), size::bytes(total)),
        (unit, 0) => format!("{done} {unit}"),
        (unit, total) => format!("{done}/{total} {unit}"),
    };
    match note {
        Some(note) => format!("{count}, {note}"),
        None => count,
    }
}

/// The line, or the few lines, that a node ends with.
pub(super) fn finished(
    node: &str,
    status: Status,
    seconds: f64,
    reason: &str,
    help: Option<&str>,
    log: &[String],
) -> String {
    let time = size::seconds(seconds);
    let mut text = match status {
        Status::Ran => format!("{node}: done in {time}"),
        Status::Cached => format!("{node}: cached ({reason})"),
        Status::Skipped => format!("{node}: skipped ({reason})"),
        Status::Failed => format!("{node}: FAILED after {time}: {reason}"),
    };
    for line in log {
        text.push_str("\n    | ");
        text.push_str(line);
    }
    if let Some(help) = help {
        text.push_str("\n    help: ");
        text.push_str(help);
    }
    text
}
