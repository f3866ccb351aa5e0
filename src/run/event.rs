//! What happens during a run. One enum feeds the terminal, the `--events` file and the run's own record;
//! its JSON form is a public contract (docs/events.md).

use std::borrow::Cow;

use qpipe_nodes::protocol::{Failure, Level};
use serde::{Deserialize, Serialize};

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was computed in this run.
    Ran,
    /// Its result was known.
    Cached,
    /// It produced nothing.
    Failed,
    /// It was not tried: something it depends on failed, or the run was ended.
    Skipped,
}

impl Status {
    /// The word in tables and events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ran => "ran",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One event of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The plan is made; nodes follow.
    RunStarted {
        /// The run's name under `.qpipe/runs/`.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// Instances in this run.
        nodes: usize,
        /// Of these, how many are known already.
        cached: usize,
        /// Worker slots.
        jobs: usize,
    },
    /// A node is being computed.
    NodeStarted {
        /// Instance.
        node: String,
        /// Its kind.
        kind: String,
        /// Its key, 64 hexadecimal digits; empty while a remote source is not resolved.
        key: String,
        /// Why it runs.
        reason: String,
    },
    /// A node waits for another process that computes the same thing.
    NodeWaiting {
        /// Instance.
        node: String,
        /// Who computes it.
        holder: String,
    },
    /// How far a node is.
    Progress {
        /// Instance.
        node: String,
        /// Units of work done.
        done: u64,
        /// Of how many; 0 if not known.
        total: u64,
        /// What is counted.
        unit: String,
        /// A figure to show.
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// Something worth reading.
    Log {
        /// Instance.
        node: String,
        /// How important.
        level: Level,
        /// A sentence.
        message: String,
    },
    /// A node ended.
    NodeFinished {
        /// Instance.
        node: String,
        /// Its kind.
        kind: Cow<'static, str>,
        /// Its key; empty if it never got one.
        key: String,
        /// How.
        status: Status,
        /// Wall time in this run.
        seconds: f64,
        /// Why it ran, failed or was skipped; empty for a cached node.
        reason: String,
        /// Of a failure: whose fault.
        #[serde(skip_serializing_if = "Option::is_none")]
        class: Option<Failure>,
        /// Of a failure: what to do.
        #[serde(skip_serializing_if = "Option::is_none")]
        help: Option<String>,
        /// Of a failure: the last lines of the worker's log.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        log: Vec<String>,
    },
    /// The last event.
    RunFinished {
        /// The run's name.
        run: String,
        /// `done`, `failed` or `interrupted`.
        status: String,
        /// Nodes computed.
        ran: usize,
        /// Nodes known.
        cached: usize,
        /// Nodes failed.
        failed: usize,
        /// Nodes not tried.
        skipped: usize,
        /// Wall time.
        seconds: f64,
    },
}

/// Somebody who wants to know.
pub trait Observer {
    /// Is told every event, in order.
    fn on(&mut self, event: &Event);
}
