//! What all slots of a run share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use qpipe_cache::{Meta, Store};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fetch::Lock;

/// The common ground of a run's slots.
pub(super) struct Shared<'a> {
    /// The store.
    pub store: &'a Store,
    /// What remote sources are; written when one is resolved.
    pub lock: Mutex<Lock>,
    /// Where the lock file is.
    pub lock_path: PathBuf,
    run: String,
    pipeline: String,
    host: String,
    stop: AtomicBool,
    pids: Mutex<Vec<Option<u32>>>,
}

impl<'a> Shared<'a> {
    /// For a run called `run` with `slots` slots.
    pub(super) fn new(
        store: &'a Store,
        lock: Lock,
        lock_path: &Path,
        names: [&str; 2],
        slots: usize,
    ) -> Self {
        let [run, pipeline] = names;
        Self {
            store,
            lock: Mutex::new(lock),
            lock_path: lock_path.to_owned(),
            run: run.to_owned(),
            pipeline: pipeline.to_owned(),
            host: qpipe_cache::host_name(),
            stop: AtomicBool::new(false),
            pids: Mutex::new(vec![None; slots]),
        }
    }

    /// The run's name.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// True once the run is being ended.
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the run: no slot starts anything new, busy workers are asked to stop at the end of their unit.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.signal_all(Signal::TERM);
    }

    /// Ends busy workers at once. What they had published as units remains.
    pub(super) fn kill_all(&self) {
        self.signal_all(Signal::KILL);
    }

    /// Notes which worker a slot is waiting for.
    pub(super) fn set_pid(&self, slot: usize, pid: Option<u32>) {
        let mut pids = self.pids.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(entry) = pids.get_mut(slot) {
            *entry = pid;
        }
        // The run may have been ended while this worker was starting.
        if let Some(pid) = pid
            && self.stopping()
        {
            signal(pid, Signal::TERM);
        }
    }

    /// What is written beside a record, for people.
    pub(super) fn meta(&self, node: &str, seconds: f64, facts: BTreeMap<String, Value>) -> Meta {
        Meta {
            node: node.to_owned(),
            pipeline: self.pipeline.clone(),
            run: self.run.clone(),
            finished_unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()),
            seconds,
            host: self.host.clone(),
            facts,
        }
    }

    fn signal_all(&self, which: Signal) {
        let pids = self.pids.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for pid in pids.iter().flatten() {
            signal(*pid, which);
        }
    }
}

fn signal(pid: u32, which: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself; then there is nothing to signal.
        let _ = kill_process(pid, which);
    }
}
