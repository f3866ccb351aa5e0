//! Runs what the plan says is due. The main thread owns all state and hands jobs to slots; slots own nothing
//! but their worker. Plain threads and channels, not rayon: a slot blocks for hours.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use qpipe_nodes::protocol::Level;
use qpipe_nodes::{Host, Sensitivity};

use super::admission::{Admission, Demand};
use super::build::{build_job, cores, memory};
use super::event::{Event, Observer, Status};
use super::job::{Job, NodeFailure, Outcome};
use super::ready::ReadyQueue;
use super::shared::Shared;
use super::signals::Interrupts;
use super::slot::{self, Message};
use crate::plan::{Due, Known, Planner, State, chains, inputs_of};

/// Slots for nodes that qpipe computes itself; they wait for disks and networks, not for cores.
const LOCAL_SLOTS: usize = 4;
/// How often signals are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long a worker may take to finish its unit once the run is being ended.
const GRACE: Duration = Duration::from_secs(60);

/// How a run is run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Worker slots.
    pub jobs: usize,
    /// Bytes that running nodes may need together, as far as that can be told.
    pub max_memory: Option<u64>,
    /// Start nothing new after a failure.
    pub fail_fast: bool,
}

/// How one instance ended.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    /// How.
    pub status: Status,
    /// Wall time in this run.
    pub seconds: f64,
    /// Why it ran, failed or was skipped.
    pub reason: String,
}

/// What a run leaves.
pub(super) struct Results {
    /// By instance; `None` for instances that were not part of the run.
    pub finished: Vec<Option<Finished>>,
    /// By instance.
    pub known: Vec<Option<Arc<Known>>>,
    /// Whether a signal ended it.
    pub interrupted: bool,
}

/// Runs the `due` and `blocked` instances among the `wanted`.
pub(super) struct Scheduler<'a> {
    planner: &'a Planner<'a>,
    shared: &'a Shared<'a>,
    limits: Limits,
    observer: &'a mut dyn Observer,
    results: Results,
    due: Vec<Option<Box<Due>>>,
    /// Inputs that are not known yet, by instance.
    missing: Vec<usize>,
    readers: Vec<Vec<usize>>,
    position: Vec<usize>,
    /// The instance that had better run first, though this one does without: see [`chains`].
    before: Vec<Option<usize>>,
    /// Instances that are due and wait for that.
    held: Vec<Vec<usize>>,
    ready: ReadyQueue,
    free: [Vec<usize>; 2],
    running: Vec<(usize, Running)>,
    stop_starting: bool,
}

/// What the scheduler remembers of a running job.
struct Running {
    kind: &'static str,
    key: String,
    reason: String,
    demand: Demand,
}

impl<'a> Scheduler<'a> {
    /// `states` and `known` are [`Planner::examine_all`]'s answer; instances that are not `wanted` are left out.
    pub(super) fn new(
        planner: &'a Planner<'a>,
        shared: &'a Shared<'a>,
        limits: Limits,
        observer: &'a mut dyn Observer,
        (states, known): (Vec<State>, Vec<Option<Arc<Known>>>),
        wanted: &[bool],
    ) -> Self {
        let pipeline = planner.pipeline;
        let count = pipeline.instances.len();
        let mut scheduler = Self {
            planner,
            shared,
            limits,
            observer,
            results: Results { finished: vec![None; count], known, interrupted: false },
            due: (0..count).map(|_| None).collect(),
            missing: vec![0; count],
            readers: vec![Vec::new(); count],
            position: vec![0; count],
            before: chains(pipeline, wanted),
            held: vec![Vec::new(); count],
            ready: ReadyQueue::default(),
            free: [
                (0..limits.jobs).rev().collect(),
                (limits.jobs..limits.jobs + LOCAL_SLOTS).rev().collect(),
            ],
            running: Vec::new(),
            stop_starting: false,
        };
        for (position, &index) in pipeline.order.iter().enumerate() {
            scheduler.position[index] = position;
        }
        let mut states: Vec<Option<State>> = states.into_iter().map(Some).collect();
        for &index in pipeline.order.iter().filter(|&&index| wanted[index]) {
            match states[index].take() {
                Some(State::Cached(known)) => scheduler.cached(index, &known),
                Some(State::Due(due)) => scheduler.enqueue(index, due),
                Some(State::Blocked(_)) | None => {
                    for input in inputs_of(&pipeline.instances[index]) {
                        if scheduler.results.known[input].is_none() {
                            scheduler.missing[index] += 1;
                            scheduler.readers[input].push(index);
                        }
                    }
                }
            }
        }
        scheduler
    }

    /// Runs everything; returns when nothing can run any more.
    pub(super) fn run(mut self, interrupts: &Interrupts) -> Results {
        if self.ready.is_empty() {
            self.skip_the_rest();
            return self.results;
        }
        let (messages, inbox) = channel();
        std::thread::scope(|scope| {
            let slots = self.spawn(scope, &messages);
            self.work(&slots, &inbox, interrupts);
            // Slots end when their queue is dropped.
            drop(slots);
        });
        self.skip_the_rest();
        self.results
    }

    fn spawn<'scope>(
        &self,
        scope: &'scope Scope<'scope, 'a>,
        messages: &Sender<Message>,
    ) -> Vec<Sender<Job>> {
        let shared = self.shared;
        (0..self.limits.jobs + LOCAL_SLOTS)
            .map(|slot| {
                let (jobs, queue) = channel();
                let messages = messages.clone();
                scope.spawn(move || slot::serve(slot, &queue, &messages, shared));
                jobs
            })
            .collect()
    }

    fn work(&mut self, slots: &[Sender<Job>], inbox: &Receiver<Message>, interrupts: &Interrupts) {
        let mut stopped_at: Option<Instant> = None;
        loop {
            if !self.stop_starting {
                self.start_what_fits(slots);
            }
            if self.running.is_empty() {
                return;
            }
            match inbox.recv_timeout(TICK) {
                Ok(Message::Event(event)) => self.observer.on(&event),
                Ok(Message::Ended { slot, index, outcome, seconds }) => {
                    self.ended(slot, index, outcome, seconds)
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            match (interrupts.count(), stopped_at) {
                (0, _) => {}
                (_, None) => {
                    self.results.interrupted = true;
                    self.stop_starting = true;
                    stopped_at = Some(Instant::now());
                    self.shared.stop();
                }
                (count, Some(since)) if count > 1 || since.elapsed() > GRACE => self.shared.kill_all(),
                _ => {}
            }
        }
    }

    fn start_what_fits(&mut self, slots: &[Sender<Job>]) {
        let all_cores = self.planner.machine.cores_for(self.limits.jobs);
        loop {
            let running = self.running.iter().map(|(_, job)| job.demand);
            let admission = Admission::new(self.limits.max_memory, all_cores, running);
            let (planner, limits, free, known) = (self.planner, self.limits, &self.free, &self.results.known);
            let demand = |index, measured| Demand {
                memory: memory(planner, index, known, limits.max_memory),
                cores: cores(planner, index, known),
                measured,
            };
            let next = self.ready.pop(|index, measured| {
                let host = planner.pipeline.instances[index].parsed.host;
                !free[lane(host)].is_empty() && admission.admits(demand(index, measured))
            });
            let Some((index, measured)) = next else { return };
            let demand = demand(index, measured);
            let Some(due) = self.due[index].take() else { continue };
            let instance = &self.planner.pipeline.instances[index];
            let host = instance.parsed.host;
            let job = match build_job(self.planner, index, *due, &self.results.known, self.limits.max_memory)
            {
                Ok(job) => job,
                Err(failure) => {
                    self.failed(index, String::new(), 0.0, failure);
                    continue;
                }
            };
            if let Some(max) = self.limits.max_memory
                && job.memory > max
            {
                self.observer.on(&Event::Log {
                    node: instance.id.clone(),
                    level: Level::Warn,
                    message: "may need more memory than --max-memory allows; it runs by itself".to_owned(),
                });
            }
            let Some(slot) = self.free[lane(host)].pop() else { continue };
            let memo = Running {
                kind: instance.kind.name,
                key: job.keyed.as_ref().map_or_else(String::new, |(_, key)| key.to_string()),
                reason: job.reason.clone(),
                demand,
            };
            self.running.push((index, memo));
            // A slot lives as long as its queue.
            let _ = slots[slot].send(job);
        }
    }

    fn ended(&mut self, slot: usize, index: usize, outcome: Outcome, seconds: f64) {
        self.free[usize::from(slot >= self.limits.jobs)].push(slot);
        let Some(place) = self.running.iter().position(|(running, _)| *running == index) else { return };
        let (_, job) = self.running.swap_remove(place);
        match outcome {
            Outcome::Ran(known) => {
                let key = known.key.to_string();
                self.finish(index, job.kind, key, Status::Ran, seconds, job.reason, None);
                self.learn(index, known);
            }
            Outcome::Hit(known) => {
                let key = known.key.to_string();
                let reason = "computed meanwhile by another node or run".to_owned();
                self.finish(index, job.kind, key, Status::Cached, seconds, reason, None);
                self.learn(index, known);
            }
            Outcome::Failed(failure) => self.failed(index, job.key, seconds, failure),
            Outcome::Stopped => {
                let reason = "interrupted; what was finished is kept".to_owned();
                self.finish(index, job.kind, job.key, Status::Skipped, seconds, reason, None);
            }
        }
    }

    fn failed(&mut self, index: usize, key: String, seconds: f64, failure: NodeFailure) {
        let kind = self.planner.pipeline.instances[index].kind.name;
        let reason = failure.message.clone();
        self.finish(index, kind, key, Status::Failed, seconds, reason, Some(failure));
        self.stop_starting |= self.limits.fail_fast;
    }

    fn cached(&mut self, index: usize, known: &Known) {
        let kind = self.planner.pipeline.instances[index].kind.name;
        self.finish(index, kind, known.key.to_string(), Status::Cached, 0.0, String::new(), None);
    }

    /// A result came: nodes that waited for it may be known now, or due.
    fn learn(&mut self, index: usize, known: Known) {
        self.results.known[index] = Some(Arc::new(known));
        let mut learned = vec![index];
        while let Some(index) = learned.pop() {
            for reader in std::mem::take(&mut self.readers[index]) {
                self.missing[reader] -= 1;
                if self.missing[reader] > 0 {
                    continue;
                }
                let state = {
                    let lock = self.shared.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    self.planner.examine(reader, &self.results.known, &lock)
                };
                match state {
                    Ok(State::Cached(known)) => {
                        self.cached(reader, &known);
                        self.results.known[reader] = Some(known);
                        learned.push(reader);
                    }
                    Ok(State::Due(due)) => self.enqueue(reader, due),
                    Ok(State::Blocked(_)) => {}
                    Err(error) => self.failed(reader, String::new(), 0.0, error.into()),
                }
            }
        }
    }

    fn enqueue(&mut self, index: usize, due: Box<Due>) {
        self.due[index] = Some(due);
        match self.before[index] {
            Some(before) if self.results.finished[before].is_none() => self.held[before].push(index),
            _ => self.make_ready(index),
        }
    }

    fn make_ready(&mut self, index: usize) {
        let measured = self.planner.pipeline.instances[index].parsed.sensitivity == Sensitivity::Hardware;
        self.ready.push(self.position[index], index, measured);
    }

    /// What nobody started: because an input failed, or because the run was ended.
    fn skip_the_rest(&mut self) {
        self.ready.drain();
        let pipeline = self.planner.pipeline;
        for &index in &pipeline.order {
            let waits = self.due[index].is_some() || self.missing[index] > 0;
            if self.results.finished[index].is_some() || !waits {
                continue;
            }
            let culprit = inputs_of(&pipeline.instances[index]).find(|&input| {
                matches!(&self.results.finished[input], Some(f) if matches!(f.status, Status::Failed | Status::Skipped))
            });
            let reason = match culprit {
                Some(input) => {
                    let status = self.results.finished[input].as_ref().map_or("skipped", |f| f.status.word());
                    let verb = if status == "failed" { "failed" } else { "was skipped" };
                    format!("`{}` {verb}", pipeline.instances[input].id)
                }
                None if self.results.interrupted => "interrupted".to_owned(),
                None => "another node failed".to_owned(),
            };
            let kind = pipeline.instances[index].kind.name;
            self.finish(index, kind, String::new(), Status::Skipped, 0.0, reason, None);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one event")]
    fn finish(
        &mut self,
        index: usize,
        kind: &'static str,
        key: String,
        status: Status,
        seconds: f64,
        reason: String,
        failure: Option<NodeFailure>,
    ) {
        self.results.finished[index] = Some(Finished { status, seconds, reason: reason.clone() });
        // However it ended: what waited for it can do without.
        for held in std::mem::take(&mut self.held[index]) {
            self.make_ready(held);
        }
        let (class, help, log) = match failure {
            Some(failure) => (Some(failure.class), failure.help, failure.log),
            None => (None, None, Vec::new()),
        };
        self.observer.on(&Event::NodeFinished {
            node: self.planner.pipeline.instances[index].id.clone(),
            kind: kind.into(),
            key,
            status,
            seconds,
            reason,
            class,
            help,
            log,
        });
    }
}

/// Worker slots come first, qpipe's own after them.
fn lane(host: Host) -> usize {
    match host {
        Host::Worker => 0,
        Host::Qpipe => 1,
    }
}
