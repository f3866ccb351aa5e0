//! A run on a terminal: one bar for the nodes, one for each running node with rate and remaining time.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use qpipe_nodes::protocol::Level;

use super::lines::finished;
use crate::run::{Event, Observer, Status};

/// Draws bars.
pub(super) struct Bars {
    all: MultiProgress,
    nodes: Option<ProgressBar>,
    running: HashMap<String, ProgressBar>,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self { all: MultiProgress::new(), nodes: None, running: HashMap::new() }
    }

    /// A line above the bars.
    fn say(&self, text: &str) {
        let _ = self.all.println(text);
    }
}

impl Observer for Bars {
    fn on(&mut self, event: &Event) {
        match event {
            Event::RunStarted { nodes, .. } => {
                let bar = self.all.add(ProgressBar::new(*nodes as u64));
                bar.set_style(style("{msg:12} {bar:28} {pos}/{len} nodes  {elapsed}"));
                bar.set_message("pipeline");
                self.nodes = Some(bar);
            }
            Event::NodeStarted { node, .. } => {
                let bar = self.all.add(ProgressBar::no_length());
                bar.set_style(style("{prefix:28} {spinner} {elapsed}"));
                bar.set_prefix(node.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                self.running.insert(node.clone(), bar);
            }
            Event::NodeWaiting { node, holder } => self.say(&format!("{node}: waits for {holder}")),
            Event::Progress { node, done, total, unit, note } => {
                let Some(bar) = self.running.get(node) else { return };
                if bar.length() != Some(*total) && *total > 0 {
                    bar.set_length(*total);
                    let template = match unit.as_str() {
                        "bytes" => {
                            "{prefix:28} {bar:28} {bytes}/{total_bytes}  {bytes_per_sec}  eta {eta}  {msg}"
                                .to_owned()
                        }
                        unit => format!(
                            "{{prefix:28}} {{bar:28}} {{pos}}/{{len}} {unit}  {{per_sec}}  eta {{eta}}  {{msg}}"
                        ),
                    };
                    bar.set_style(style(&template));
                }
                bar.set_position(*done);
                bar.set_message(note.clone().unwrap_or_default());
            }
            Event::Log { node, level, message } => {
                if *level != Level::Debug {
                    self.say(&format!("{node}: {message}"));
                }
            }
            Event::NodeFinished { node, status, seconds, reason, help, log, .. } => {
                if let Some(bar) = self.running.remove(node) {
                    bar.finish_and_clear();
                }
                if let Some(nodes) = &self.nodes {
                    nodes.inc(1);
                }
                if !(*status == Status::Cached && reason.is_empty()) {
                    self.say(&finished(node, *status, *seconds, reason, help.as_deref(), log));
                }
            }
            Event::RunFinished { .. } => {
                if let Some(bar) = self.nodes.take() {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

/// A bar by itself, of bytes. Drawn on a terminal only.
pub(super) fn bytes(name: &'static str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_style(style("{prefix:12} {bar:28} {bytes}/{total_bytes}  {bytes_per_sec}  eta {eta}"));
    bar.set_prefix(name);
    bar
}

/// The templates are ours and well-formed; a bar without style is still a bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
