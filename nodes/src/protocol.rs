//! JSON lines between `qpipe` and `qpipe-worker`: requests on the worker's stdin, events on its stdout.
//!
//! Scratch folder of an action (`Action::scratch`), all of it owned by the worker while the action runs:
//!
//! ```text
//! scratch/out/      the artifact: what is committed to the store when the action is done
//! scratch/units/    finished units of a long node; survive a crash, the next attempt resumes from them
//! ```
//!
//! A unit is written under another name first and renamed into `units/`, then [`Event::Unit`] is sent;
//! `qpipe` records its digest and removes units that do not match before the next attempt.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Raised when either side would misunderstand the other.
pub const PROTOCOL_VERSION: u32 = 1;

/// The folder in the scratch folder that becomes the artifact.
pub const OUT: &str = "out";
/// The folder in the scratch folder that holds finished units.
pub const UNITS: &str = "units";

/// A line on the worker's stdin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Run one node.
    Run(Action),
    /// End the process.
    Shutdown,
}

/// Everything a worker needs to run one node. It parses no pipeline and knows no cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Action {
    /// Chosen by `qpipe`; repeated in every event.
    pub id: u64,
    /// A kind of [`crate::KINDS`].
    pub kind: String,
    /// Its parameters, defaults filled in: [`crate::Parsed::params`].
    pub params: Value,
    /// Resolved inputs by port, and what `qpipe` has found itself ([`crate::kinds::EARLIER`]).
    pub inputs: BTreeMap<String, Input>,
    /// See the module's documentation.
    pub scratch: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// CPU threads.
    pub threads: u32,
    /// Bytes of memory to make do with, where the worker can choose; a slower way gives the same bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
}

/// A resolved input: folders (models, adapters, evaluations) or a file or folder (data).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// One artifact.
    One(PathBuf),
    /// A list.
    Many(Vec<PathBuf>),
    /// By name.
    Map(BTreeMap<String, PathBuf>),
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// The processor.
    Cpu,
    /// The GPU with this index.
    Cuda(u32),
}

/// A line on the worker's stdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first line: libtorch is loaded.
    Ready {
        /// [`PROTOCOL_VERSION`] of the worker.
        protocol: u32,
        /// libtorch's version, `2.11.0`.
        torch: String,
    },
    /// How far the action is.
    Progress {
        /// The action.
        id: u64,
        /// Units of work done.
        done: u64,
        /// Of how many.
        total: u64,
        /// What is counted: `steps`, `questions`, `layers`.
        unit: String,
        /// A figure to show: `loss 2.31`.
        note: Option<String>,
    },
    /// Something worth reading.
    Log {
        /// The action, if it belongs to one.
        id: Option<u64>,
        /// How important.
        level: Level,
        /// A sentence.
        message: String,
    },
    /// A unit was renamed into `units/`.
    Unit {
        /// The action.
        id: u64,
        /// Its file name in `units/`.
        name: String,
    },
    /// The artifact is complete in `out/`.
    Done {
        /// The action.
        id: u64,
        /// Figures for the record and the table: peak memory, tokens, samples.
        facts: BTreeMap<String, Value>,
    },
    /// The action ended without an artifact.
    Failed {
        /// The action.
        id: u64,
        /// Whose fault.
        class: Failure,
        /// What, where.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// The action stopped at a unit's end because SIGTERM came. Its units remain.
    Stopped {
        /// The action.
        id: u64,
    },
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For developers.
    Debug,
    /// Good to know.
    Info,
    /// Probably not what was wanted.
    Warn,
}

/// Whose fault a failure is, and so whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The user's input: a broken checkpoint, a row that is not a question.
    User,
    /// The same inputs fail every time (a NaN, a singular matrix).
    Deterministic,
    /// Out of memory, out of time.
    Resources,
    /// Disk full, file unreadable, no GPU, a killed process.
    Surroundings,
}
