//! What a slot is given to do, and what comes back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use qpipe_cache::{Digest, Manifest, Tree};
use qpipe_nodes::Sensitivity;
use qpipe_nodes::protocol::{Action, Device, Failure};
use serde_json::Value;

use super::local::LocalWork;
use crate::plan::{Known, Place, PlanError};
use crate::report::ReportError;

/// A node to be computed: everything a slot needs, and no pipeline.
pub(super) struct Job {
    /// The instance's index in the pipeline.
    pub index: usize,
    /// The instance.
    pub node: String,
    /// Its kind.
    pub kind: String,
    /// Whether it needs its device for itself.
    pub sensitivity: Sensitivity,
    /// Its manifest and key; absent for a remote source that is not pinned.
    pub keyed: Option<(Manifest, Digest)>,
    /// Why it runs.
    pub reason: String,
    /// Compute it though a record exists.
    pub forced: bool,
    /// What the worker is told, or what qpipe does itself.
    pub work: Work,
    /// Bytes of memory it is expected to need.
    pub memory: u64,
    /// Bytes of memory it is to make do with, where it can choose.
    pub max_memory: Option<u64>,
}

/// What is to be done.
pub(super) enum Work {
    /// By a worker.
    Worker {
        /// Parameters with defaults.
        params: Value,
        /// Inputs by port, still to be made into folders.
        inputs: BTreeMap<String, Binding>,
        /// Where.
        device: Device,
        /// CPU threads.
        threads: u32,
    },
    /// By qpipe.
    Local(LocalWork),
}

/// An input port with its artifacts.
#[derive(Clone, Debug)]
pub(super) enum Binding {
    /// One.
    One(Source),
    /// A list.
    Many(Vec<Source>),
    /// By name.
    Map(BTreeMap<String, Source>),
}

/// An artifact as an input.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Its files.
    pub tree: Tree,
    /// Where they are.
    pub place: Place,
}

impl Source {
    /// The artifact of a finished node.
    pub(super) fn of(known: &Known) -> Self {
        Self { tree: known.output.clone(), place: known.place.clone() }
    }

    /// A file or folder of the user's.
    pub(super) fn at(path: PathBuf, tree: Tree) -> Self {
        Self { tree, place: Place::Path(path) }
    }
}

/// How a job ended.
pub(super) enum Outcome {
    /// Computed.
    Ran(Known),
    /// Another process had computed it meanwhile.
    Hit(Known),
    /// It produced nothing.
    Failed(NodeFailure),
    /// The run is being ended.
    Stopped,
}

/// Why a node produced nothing.
#[derive(Clone, Debug)]
pub(super) struct NodeFailure {
    /// Whose fault.
    pub class: Failure,
    /// What, where.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The last lines of the worker's log.
    pub log: Vec<String>,
}

impl NodeFailure {
    /// A failure without a log.
    pub(super) fn new(class: Failure, message: impl Into<String>, help: Option<String>) -> Self {
        Self { class, message: message.into(), help, log: Vec::new() }
    }
}

impl From<qpipe_cache::StoreError> for NodeFailure {
    fn from(error: qpipe_cache::StoreError) -> Self {
        Self::new(Failure::Surroundings, error.to_string(), error.help().map(str::to_owned))
    }
}

impl From<PlanError> for NodeFailure {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Store(error) if !error.is_of_input() => error.into(),
            error => Self::new(Failure::User, error.to_string(), error.help()),
        }
    }
}

impl From<ReportError> for NodeFailure {
    fn from(error: ReportError) -> Self {
        Self::new(error.class(), error.to_string(), error.help())
    }
}

/// What an action looks like once inputs are folders.
pub(super) fn action(
    id: u64,
    job: &Job,
    inputs: BTreeMap<String, qpipe_nodes::protocol::Input>,
    scratch: PathBuf,
) -> Option<Action> {
    match &job.work {
        Work::Worker { params, device, threads, .. } => Some(Action {
            id,
            kind: job.kind.clone(),
            params: params.clone(),
            inputs,
            scratch,
            device: *device,
            threads: *threads,
            max_memory: job.max_memory,
        }),
        Work::Local(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_says_whose_fault_it_is() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let failure = NodeFailure::from(ReportError::from(full));
        assert_eq!(failure.class, Failure::Surroundings);
        assert!(failure.help.is_some_and(|help| help.contains("Free some space")));
        let full = PlanError::Store(std::io::Error::from(std::io::ErrorKind::StorageFull).into());
        assert_eq!(NodeFailure::from(full).class, Failure::Surroundings);
        let failure = NodeFailure::from(ReportError::NoBaseline { row: 1, baseline: 9, rows: 2 });
        assert_eq!(failure.class, Failure::Deterministic);
    }
}
