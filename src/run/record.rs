//! What a run leaves under `.qpipe/runs/ID/`: its events, its plan and its results.

use std::borrow::Cow;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_cache::replace::Replacement;
use serde::{Deserialize, Serialize};

use super::event::{Event, Observer, Status};

/// The events, one JSON object a line.
pub const EVENTS_FILE: &str = "events.jsonl";
/// What was planned: one row a node.
pub const PLAN_FILE: &str = "plan.json";
/// What came of it.
pub const SUMMARY_FILE: &str = "summary.json";

/// Bytes that are written at once.
const BUFFER: usize = 64 << 10;

/// One row of a run's table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Instance.
    pub node: String,
    /// Its kind.
    pub kind: Cow<'static, str>,
    /// How it ended.
    pub status: Status,
    /// Wall time in the run.
    pub seconds: f64,
    /// Why it ran, failed or was skipped.
    pub reason: String,
}

/// `summary.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The run's name.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file.
    pub file: PathBuf,
    /// `done`, `failed` or `interrupted`.
    pub status: String,
    /// Wall time.
    pub seconds: f64,
    /// One row a node, in the file's order.
    pub nodes: Vec<SummaryRow>,
    /// Folders of the reports, and their tables.
    pub reports: Vec<(PathBuf, String)>,
}

impl Summary {
    /// How many nodes ended so.
    pub fn count(&self, status: Status) -> usize {
        self.nodes.iter().filter(|row| row.status == status).count()
    }
}

/// Names a run by the time it starts; the process number keeps two of one second apart.
pub fn run_name() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    format!("{now}-{}", std::process::id())
}

/// Writes a run's folder. A store that cannot be written is no reason not to run: hits need no writing.
pub struct RunRecord {
    folder: PathBuf,
    events: Option<BufWriter<fs::File>>,
}

impl RunRecord {
    /// Makes `runs/NAME`.
    pub fn create(runs: &Path, name: &str) -> Self {
        let folder = runs.join(name);
        let events = fs::create_dir_all(&folder)
            .and_then(|()| fs::File::create(folder.join(EVENTS_FILE)))
            .inspect_err(|error| tracing::warn!("this run is not recorded: {error}"))
            .ok()
            .map(|file| BufWriter::with_capacity(BUFFER, file));
        Self { folder, events }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file of the record: whole, or not at all.
    pub fn write(&self, name: &str, value: &impl Serialize) {
        if self.events.is_none() {
            return;
        }
        let written = serde_json::to_vec(value)
            .map_err(std::io::Error::from)
            .and_then(|text| Replacement::new(self.folder.join(name), &mut text.as_slice())?.put());
        if let Err(error) = written {
            tracing::warn!("the run's record is incomplete: {error}");
        }
    }
}

impl Observer for RunRecord {
    fn on(&mut self, event: &Event) {
        let Some(events) = &mut self.events else { return };
        // Progress is for eyes; everything else is for later.
        if matches!(event, Event::Progress { .. }) {
            return;
        }
        let started = matches!(event, Event::NodeStarted { .. } | Event::RunFinished { .. });
        let written = serde_json::to_writer(&mut *events, event)
            .map_err(std::io::Error::from)
            .and_then(|()| events.write_all(b"\n"))
            .and_then(|()| if started { events.flush() } else { Ok(()) });
        if let Err(error) = written {
            tracing::warn!("the run's record ends here: {error}");
            self.events = None;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde::ser::Error as _;

    use super::*;

    /// Like a process that is killed in the middle of a file.
    struct Breaks;

    impl Serialize for Breaks {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("no more"))
        }
    }

    #[test]
    fn a_file_that_is_not_finished_is_not_there() {
        let runs = tempfile::tempdir().unwrap();
        let record = RunRecord::create(runs.path(), "a");
        record.write(SUMMARY_FILE, &("half", Breaks));
        assert!(!record.folder().join(SUMMARY_FILE).exists());
        record.write(SUMMARY_FILE, &"whole");
        record.write(SUMMARY_FILE, &("half", Breaks));
        assert_eq!(fs::read_to_string(record.folder().join(SUMMARY_FILE)).unwrap(), "\"whole\"");
    }
}
