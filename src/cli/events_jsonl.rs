//! `--events FILE`: one JSON object a line, for machines.

use std::fs::File;
use std::io::{BufWriter, Write};

use crate::run::{Event, Observer};

/// Writes events to a file.
pub(super) struct EventsFile {
    /// Absent once it could not be written.
    file: Option<BufWriter<File>>,
}

impl EventsFile {
    pub(super) fn new(file: BufWriter<File>) -> Self {
        Self { file: Some(file) }
    }
}

impl Observer for EventsFile {
    fn on(&mut self, event: &Event) {
        let Some(file) = &mut self.file else { return };
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        let mut written = file.write_all(&line);
        // Whoever follows the file sees a node start, not a full buffer.
        if matches!(event, Event::NodeStarted { .. } | Event::Progress { .. } | Event::RunFinished { .. }) {
            written = written.and_then(|()| file.flush());
        }
        if let Err(error) = written {
            tracing::warn!("--events ends here: {error}");
            self.file = None;
        }
    }
}
