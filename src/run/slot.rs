//! One slot: a thread that computes one node after the other, with a warm worker of its own.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use qpipe_cache::{Attempt as Try, Claim, Digest, Location, Lookup, Meta, Store, StoreError};
use qpipe_nodes::Sensitivity;
use qpipe_nodes::protocol::{Device, Event as Said, Failure, Input};
use serde_json::Value;

use super::device_lock::{self, DeviceLock};
use super::earlier;
use super::event::Event;
use super::inputs::{check_unchanged, inputs_folder, materialise};
use super::job::{self, Job, NodeFailure, Outcome, Work};
use super::kept;
use super::local::{self, LocalWork};
use super::shared::Shared;
use super::worker::{BrokenWorker, Worker, WorkerError, worker_path};
use crate::fetch::Pin;
use crate::plan::Known;

/// From a slot to the scheduler.
pub(super) enum Message {
    /// Something to tell the observers.
    Event(Event),
    /// A job ended.
    Ended {
        /// The slot that is free again.
        slot: usize,
        /// The instance.
        index: usize,
        /// How.
        outcome: Outcome,
        /// Wall time, waiting for others included.
        seconds: f64,
    },
}

/// How often a node that another process computes is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Action numbers are unique in this process, so that a late event cannot be taken for another action's.
static NEXT_ACTION: AtomicU64 = AtomicU64::new(1);

/// Computes jobs until there are no more.
pub(super) fn serve(slot: usize, jobs: &Receiver<Job>, messages: &Sender<Message>, shared: &Shared<'_>) {
    let mut worker: Option<Worker> = None;
    while let Ok(job) = jobs.recv() {
        let started = Instant::now();
        let index = job.index;
        let outcome = caught(|| Attempt { slot, job: &job, messages, shared, worker: &mut worker }.run());
        shared.set_pid(slot, None);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // A download that was told to stop has not failed.
            Err(_) if shared.stopping() && matches!(job.work, Work::Local(LocalWork::Fetch(_))) => {
                Outcome::Stopped
            }
            Err(failure) => Outcome::Failed(failure),
        };
        let seconds = started.elapsed().as_secs_f64();
        if messages.send(Message::Ended { slot, index, outcome, seconds }).is_err() {
            return;
        }
    }
}

/// What `compute` comes to. A panic is a failure of the node: the scheduler waits for an answer.
fn caught(compute: impl FnOnce() -> Result<Outcome, NodeFailure>) -> Result<Outcome, NodeFailure> {
    // What a panic may leave half done dies with the attempt: its claim, and its worker, which was taken out of the slot.
    catch_unwind(AssertUnwindSafe(compute)).unwrap_or_else(|panic| {
        let message = format!("a bug of qpipe's: {}", panic_message(&*panic));
        let help = "Please report it, with what stands on stderr.".to_owned();
        Err(NodeFailure::new(Failure::Deterministic, message, Some(help)))
    })
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say what")
}

struct Attempt<'a, 's> {
    slot: usize,
    job: &'a Job,
    messages: &'a Sender<Message>,
    shared: &'a Shared<'s>,
    worker: &'a mut Option<Worker>,
}

impl Attempt<'_, '_> {
    fn run(&mut self) -> Result<Outcome, NodeFailure> {
        let Some((manifest, key)) = self.job.keyed.clone() else {
            return local::fetch(self.job, self.shared, &mut |event| tell(self.messages, event));
        };
        let store = self.shared.store;
        let claim = match self.claim(store, &key)? {
            Some(Lookup::Hit(record)) => return Ok(Outcome::Hit(self.known(record))),
            Some(Lookup::Miss(claim)) => claim,
            None => return Ok(Outcome::Stopped),
        };
        if let Some(failure) = kept::recall(store, &key, &self.job.node)? {
            return Err(failure);
        }
        tell(
            self.messages,
            Event::NodeStarted {
                node: self.job.node.clone(),
                kind: self.job.kind.clone(),
                key: key.to_string(),
                reason: self.job.reason.clone(),
            },
        );
        let started = Instant::now();
        let facts = match &self.job.work {
            Work::Local(work) => {
                if let Some(tree) = work.external() {
                    let meta = self.meta(started, BTreeMap::new());
                    let record = claim.commit_external(manifest, tree.clone(), meta)?;
                    return Ok(Outcome::Ran(self.known(record)));
                }
                local::run(work, &claim, self.job, self.shared, &mut |event| tell(self.messages, event))?
            }
            Work::Worker { inputs, device, .. } => {
                let mut folders = materialise(store, &claim, inputs)?;
                if !self.job.forced {
                    folders.extend(earlier::answers(store, &claim, &manifest)?);
                }
                let Some(alone) = self.device(*device) else { return Ok(Outcome::Stopped) };
                let computed = self.compute(&claim, folders);
                drop(alone);
                // First: what a node made of files that changed under it, a failure too, says nothing of its key.
                if !matches!(computed, Ok(None)) {
                    check_unchanged(store, inputs)?;
                }
                match computed {
                    Ok(Some(facts)) => facts,
                    Ok(None) => return Ok(Outcome::Stopped),
                    Err(failure) => {
                        kept::keep(claim, &failure, self.shared);
                        return Err(failure);
                    }
                }
            }
        };
        let meta = self.meta(started, facts);
        let record = match self.pin() {
            Some(pin) => local::commit_pinned(claim, manifest, pin, self.shared, meta)?,
            None => claim.commit(manifest, meta)?,
        };
        Ok(Outcome::Ran(self.known(record)))
    }

    /// The result, or the right to compute it; `None` if the run ends while another process computes it.
    fn claim(&self, store: &Store, key: &Digest) -> Result<Option<Lookup>, NodeFailure> {
        let kind = &self.job.kind;
        let mut wait = |holder: &str| self.waits_for(holder);
        if self.job.forced {
            return patiently(self.shared, &mut wait, || store.try_claim_anew(key, kind));
        }
        match &self.job.work {
            Work::Local(LocalWork::Fetch(_)) => stored_lookup(store, key, kind, self.shared, &mut wait),
            _ => patient_lookup(store, key, kind, self.shared, &mut wait),
        }
    }

    /// The device, alone where the node is a measurement; `None` if the run ends before it is free.
    fn device(&self, device: Device) -> Option<DeviceLock> {
        let exclusive = self.job.sensitivity == Sensitivity::Hardware;
        let mut said = false;
        loop {
            if let Some(lock) = device_lock::try_acquire(device, exclusive) {
                return Some(lock);
            }
            if self.shared.stopping() {
                return None;
            }
            if !said {
                self.waits_for(if exclusive {
                    "others to leave the device"
                } else {
                    "a measurement on the device"
                });
                said = true;
            }
            std::thread::sleep(POLL);
        }
    }

    fn waits_for(&self, holder: &str) {
        let node = self.job.node.clone();
        let is_this_process = holder.starts_with(&format!("process {} on ", std::process::id()));
        let holder = if is_this_process { "another node of this run that computes the same" } else { holder };
        tell(self.messages, Event::NodeWaiting { node, holder: holder.to_owned() });
    }

    /// Has the worker compute the node; `None` if it was stopped at the end of a unit.
    fn compute(
        &mut self,
        claim: &Claim,
        inputs: BTreeMap<String, Input>,
    ) -> Result<Option<BTreeMap<String, Value>>, NodeFailure> {
        let id = NEXT_ACTION.fetch_add(1, Ordering::Relaxed);
        let Some(action) = job::action(id, self.job, inputs, claim.staging().to_owned()) else {
            return Ok(Some(BTreeMap::new()));
        };
        let mut worker = match self.worker.take() {
            Some(worker) => {
                self.shared.set_pid(self.slot, Some(worker.pid()));
                worker
            }
            None => {
                let cuda_code = self.shared.store.root().join("cuda");
                let worker = Worker::spawn(&worker_path(), Some(&cuda_code)).map_err(failure)?;
                self.shared.set_pid(self.slot, Some(worker.pid()));
                match worker.greet() {
                    Ok(worker) => worker,
                    Err(broken) => {
                        self.shared.set_pid(self.slot, None);
                        return if self.shared.stopping() { Ok(None) } else { Err(failure(broken)) };
                    }
                }
            }
        };
        worker.clear_log();
        let answer = self.converse(&mut worker, id, action, claim);
        self.shared.set_pid(self.slot, None);
        match answer {
            Ok(Answer::Done(facts)) => {
                *self.worker = Some(worker);
                Ok(Some(facts))
            }
            Ok(Answer::Failed(failure)) => {
                *self.worker = Some(worker);
                Err(failure)
            }
            Ok(Answer::Stopped) => Ok(None),
            Err(Broken::Worker(_)) if self.shared.stopping() => Ok(None),
            Err(Broken::Worker(error)) => Err(failure(error.ending(worker))),
            Err(Broken::Store(error)) => Err(error),
        }
    }

    fn converse(
        &self,
        worker: &mut Worker,
        id: u64,
        action: qpipe_nodes::protocol::Action,
        claim: &Claim,
    ) -> Result<Answer, Broken> {
        worker.send(action).map_err(Broken::Worker)?;
        let node = || self.job.node.clone();
        loop {
            match worker.next_event().map_err(Broken::Worker)? {
                Said::Progress { id: of, done, total, unit, note } if of == id => {
                    tell(self.messages, Event::Progress { node: node(), done, total, unit, note });
                }
                Said::Log { level, message, .. } => {
                    tell(self.messages, Event::Log { node: node(), level, message });
                }
                Said::Unit { id: of, name } if of == id => {
                    claim.record_unit(&name).map_err(|error| Broken::Store(error.into()))?;
                }
                Said::Done { id: of, facts } if of == id => return Ok(Answer::Done(facts)),
                Said::Failed { id: of, class, message, help } if of == id => {
                    // The folders of inputs are gone when somebody reads this; ports stay.
                    let folder = format!("{}/", inputs_folder(claim).display());
                    let mut failure = NodeFailure::new(class, message.replace(&folder, ""), help);
                    failure.log = worker.log();
                    return Ok(Answer::Failed(failure));
                }
                Said::Stopped { id: of } if of == id => return Ok(Answer::Stopped),
                other => {
                    let line = format!("{other:?}").chars().take(200).collect();
                    return Err(Broken::Worker(WorkerError::Garbage { line }));
                }
            }
        }
    }

    /// What the lock file says that comes out.
    fn pin(&self) -> Option<&Pin> {
        match &self.job.work {
            Work::Local(work) => work.pinned(),
            Work::Worker { .. } => None,
        }
    }

    fn known(&self, record: qpipe_cache::Record) -> Known {
        let local = match &self.job.work {
            Work::Local(work) => work.local_path(),
            Work::Worker { .. } => None,
        };
        debug_assert!(record.location == Location::Stored || local.is_some());
        Known::of(record, local)
    }

    fn meta(&self, started: Instant, facts: BTreeMap<String, Value>) -> Meta {
        self.shared.meta(&self.job.node, started.elapsed().as_secs_f64(), facts)
    }
}

enum Answer {
    Done(BTreeMap<String, Value>),
    Failed(NodeFailure),
    Stopped,
}

enum Broken {
    Worker(WorkerError),
    Store(NodeFailure),
}

fn failure(broken: BrokenWorker) -> NodeFailure {
    let BrokenWorker { error, log } = broken;
    NodeFailure { class: error.class(), message: error.to_string(), help: error.help(), log }
}

/// [`Store::lookup`] that gives up when the run is being ended.
pub(super) fn patient_lookup(
    store: &Store,
    key: &Digest,
    kind: &str,
    shared: &Shared<'_>,
    on_wait: &mut dyn FnMut(&str),
) -> Result<Option<Lookup>, NodeFailure> {
    patiently(shared, on_wait, || store.try_lookup(key, kind))
}

/// The same for what has to be in the store: a record of the user's own files is replaced.
pub(super) fn stored_lookup(
    store: &Store,
    key: &Digest,
    kind: &str,
    shared: &Shared<'_>,
    on_wait: &mut dyn FnMut(&str),
) -> Result<Option<Lookup>, NodeFailure> {
    patiently(shared, on_wait, || match store.try_lookup(key, kind)? {
        Try::Hit(record) if record.location == Location::External => store.try_claim_anew(key, kind),
        found => Ok(found),
    })
}

/// Tries until nobody else is at it; `None` once the run is being ended.
fn patiently(
    shared: &Shared<'_>,
    on_wait: &mut dyn FnMut(&str),
    mut attempt: impl FnMut() -> Result<Try, StoreError>,
) -> Result<Option<Lookup>, NodeFailure> {
    let mut said = false;
    loop {
        match attempt()? {
            Try::Hit(record) => return Ok(Some(Lookup::Hit(record))),
            Try::Miss(claim) => return Ok(Some(Lookup::Miss(claim))),
            Try::Busy(_) if shared.stopping() => return Ok(None),
            Try::Busy(holder) => {
                if !said {
                    on_wait(&holder);
                    said = true;
                }
                std::thread::sleep(POLL);
            }
        }
    }
}

/// The scheduler outlives its slots; if it is gone, so is everybody who would listen.
fn tell(messages: &Sender<Message>, event: Event) {
    let _ = messages.send(Message::Event(event));
}

#[cfg(test)]
#[expect(clippy::panic, reason = "that is what is tested")]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_of_the_node() {
        let panics: [fn() -> Result<Outcome, NodeFailure>; 2] =
            [|| panic!("no such {}", "row"), || panic!("no such row")];
        for panicking in panics {
            let Err(failure) = caught(panicking) else { unreachable!("it panics") };
            assert_eq!(failure.message, "a bug of qpipe's: no such row");
            assert_eq!(failure.class, Failure::Deterministic);
        }
        assert!(matches!(caught(|| Ok(Outcome::Stopped)), Ok(Outcome::Stopped)));
    }
}
