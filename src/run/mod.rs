//! Runs a pipeline: looks up what is known, computes the rest, writes the reports.
//!
//! ```text
//! run ─► Scheduler (main thread, owns all state) ─► slots (threads) ─► Worker (process) | local
//!            │ examines a node again whenever an input of it became known
//!            └─► Event ─► Observer: terminal, --events file, the run's own record
//! ```

mod admission;
mod build;
mod device_lock;
mod earlier;
mod event;
mod inputs;
mod job;
mod kept;
mod local;
mod publish;
mod ready;
mod record;
mod scheduler;
mod shared;
mod signals;
mod slot;
mod worker;

use std::path::PathBuf;
use std::time::Instant;

use qpipe_cache::Store;
use qpipe_nodes::Kind;
use qpipe_nodes::kinds::Report;
use qpipe_nodes::protocol::Failure;
use thiserror::Error;

pub use event::{Event, Observer, Status};
pub use publish::Published;
pub use record::{EVENTS_FILE, PLAN_FILE, RunRecord, SUMMARY_FILE, Summary, SummaryRow, run_name};
pub use scheduler::Limits;
pub use worker::{BrokenWorker, Worker, WorkerError, worker_path};

use crate::fetch::{FetchError, Lock};
use crate::pipeline::Pipeline;
use crate::plan::{self, Examined, Machine, PlanError, Planner, Resolved, State};
use scheduler::Scheduler;
use shared::Shared;
use signals::Interrupts;

/// What `qpipe run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these nodes and what they need; all if empty.
    pub only: Vec<String>,
    /// Run these though their results are known.
    pub force: Vec<String>,
    /// Slots, memory, what a failure means.
    pub limits: Limits,
    /// The lock file must say what every remote source is.
    pub locked: bool,
    /// Where reports go: `DIR/NAME/`.
    pub results: PathBuf,
}

/// Why a run did not begin.
#[derive(Debug, Error)]
pub enum RunError {
    /// The plan cannot be made; `nodes` are the instances concerned.
    #[error("{} of the pipeline's nodes cannot be planned", .0.len())]
    Plan(Vec<(usize, PlanError)>),
    /// `--only` or `--force` names nothing.
    #[error(transparent)]
    Selection(PlanError),
    /// The lock file cannot be read.
    #[error(transparent)]
    Lock(#[from] FetchError),
}

/// What a run came to.
pub struct Outcome {
    /// What is also written to the run's folder.
    pub summary: Summary,
    /// The reports that stand in their folders.
    pub published: Vec<Published>,
    /// Failures in the order in which they came: node, whose fault.
    pub failures: Vec<(String, Failure)>,
    /// Whether a signal ended it.
    pub interrupted: bool,
}

/// Runs `pipeline`. Everything that happens is told to `observer`.
pub fn run(
    pipeline: &Pipeline,
    store: &Store,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Outcome, RunError> {
    let started = Instant::now();
    let machine = Machine::detect(Some(store.root()));
    let mut planner = Planner::new(pipeline, store, &machine);
    let name = run_name();
    planner.run.clone_from(&name);
    planner.forced = plan::marked(pipeline, &options.force, false).map_err(RunError::Selection)?;
    let wanted = plan::marked(pipeline, &options.only, true).map_err(RunError::Selection)?;
    let wanted = plan::with_ancestors(pipeline, wanted);

    let lock_path = Lock::path_of(&pipeline.file);
    let lock = Lock::load(&lock_path)?;
    let (states, known) = examine(&planner, &lock, &wanted, options.locked.then_some(&lock_path))?;

    let mut record = RunRecord::create(&store.runs_dir(), &name);
    record.write(PLAN_FILE, &plan::plan_rows(pipeline, &states, &wanted));
    let mut observers = Fan { first: &mut record, second: observer, failures: Vec::new() };
    let nodes = wanted.iter().filter(|&&wanted| wanted).count();
    let cached = (0..states.len()).filter(|&i| wanted[i] && matches!(states[i], State::Cached(_))).count();
    observers.on(&Event::RunStarted {
        run: name.clone(),
        pipeline: pipeline.name.clone(),
        nodes,
        cached,
        jobs: options.limits.jobs,
    });

    let names = [name.as_str(), pipeline.name.as_str()];
    let slots = options.limits.jobs;
    let shared = Shared::new(store, lock, &lock_path, names, slots);
    let interrupts = Interrupts::listen();
    let scheduler =
        Scheduler::new(&planner, &shared, options.limits, &mut observers, (states, known), &wanted);
    let mut results = scheduler.run(&interrupts);
    if let Err(error) = store.settle() {
        tracing::warn!(%error, "a power cut may forget the newest results");
    }

    let mut published = Vec::new();
    for (index, outcome) in publish::publish(&planner, &results.known, &wanted, &options.results) {
        match outcome {
            Ok(report) => published.push(report),
            Err(failure) => {
                let node = pipeline.instances[index].id.clone();
                let reason = failure.message.clone();
                if let Some(finished) = &mut results.finished[index] {
                    finished.status = Status::Failed;
                    finished.reason.clone_from(&reason);
                }
                observers.on(&Event::NodeFinished {
                    node,
                    kind: Report::NAME.into(),
                    key: results.known[index].as_ref().map_or_else(String::new, |k| k.key.to_string()),
                    status: Status::Failed,
                    seconds: 0.0,
                    reason,
                    class: Some(failure.class),
                    help: failure.help,
                    log: failure.log,
                });
            }
        }
    }

    let summary = summarise(pipeline, &name, &results, &published, started);
    observers.on(&Event::RunFinished {
        run: name,
        status: summary.status.clone(),
        ran: summary.count(Status::Ran),
        cached: summary.count(Status::Cached),
        failed: summary.count(Status::Failed),
        skipped: summary.count(Status::Skipped),
        seconds: summary.seconds,
    });
    let failures = observers.failures;
    record.write(SUMMARY_FILE, &summary);
    Ok(Outcome { summary, published, failures, interrupted: results.interrupted })
}

/// Examines all nodes; every one that cannot be planned is told, not only the first.
fn examine(
    planner: &Planner<'_>,
    lock: &Lock,
    wanted: &[bool],
    locked: Option<&PathBuf>,
) -> Result<Examined, RunError> {
    let (states, known) = planner.examine_all(lock, wanted).map_err(RunError::Plan)?;
    if let Some(path) = locked {
        let open: Vec<(usize, PlanError)> = (0..states.len())
            .filter(|&index| wanted[index])
            .filter(|&index| {
                matches!(&states[index], State::Due(due) if matches!(due.source, Some(Resolved::Unresolved)))
            })
            .map(|index| {
                let source_text = planner.source_text(index);
                (index, PlanError::NotLocked { source_text, lock: path.clone() })
            })
            .collect();
        if !open.is_empty() {
            return Err(RunError::Plan(open));
        }
    }
    Ok((states, known))
}

fn summarise(
    pipeline: &Pipeline,
    run: &str,
    results: &scheduler::Results,
    published: &[Published],
    started: Instant,
) -> Summary {
    let nodes: Vec<SummaryRow> = pipeline
        .instances
        .iter()
        .zip(&results.finished)
        .filter_map(|(instance, finished)| {
            let finished = finished.as_ref()?;
            Some(SummaryRow {
                node: instance.id.clone(),
                kind: instance.kind.name.into(),
                status: finished.status,
                seconds: finished.seconds,
                reason: finished.reason.clone(),
            })
        })
        .collect();
    let failed = nodes.iter().any(|row| row.status == Status::Failed);
    let status = match (results.interrupted, failed) {
        (true, _) => "interrupted",
        (_, true) => "failed",
        _ => "done",
    };
    Summary {
        run: run.to_owned(),
        pipeline: pipeline.name.clone(),
        file: pipeline.file.clone(),
        status: status.to_owned(),
        seconds: started.elapsed().as_secs_f64(),
        nodes,
        reports: published.iter().map(|report| (report.folder.clone(), report.table.clone())).collect(),
    }
}

/// Tells two observers, and keeps whose fault the failures were.
struct Fan<'a> {
    first: &'a mut dyn Observer,
    second: &'a mut dyn Observer,
    failures: Vec<(String, Failure)>,
}

impl Observer for Fan<'_> {
    fn on(&mut self, event: &Event) {
        if let Event::NodeFinished { node, class: Some(class), .. } = event {
            self.failures.push((node.clone(), *class));
        }
        self.first.on(event);
        self.second.on(event);
    }
}
