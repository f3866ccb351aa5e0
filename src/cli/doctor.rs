//! `qpipe doctor`.

use std::time::Duration;

use clap::Args;
use qpipe_cache::Store;

use super::exit::Exit;
use super::failure::Failure;
use super::{kernels, open, printer, size};
use crate::fetch;
use crate::plan::{Machine, TORCH_VERSION};
use crate::run::{Worker, worker_path};

/// Less free space than this is worth a word.
const LITTLE_SPACE: u64 = 5 << 30;
/// How long the Hub may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A check, by the name that it is printed under.
type Check = (&'static str, fn() -> Finding);

static CHECKS: [Check; 5] =
    [("worker", worker), ("cuda", cuda), ("store", store), ("disk", disk), ("hub", hub)];

/// Says what works, what is missing, and the command that mends it.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Measures the kernel that serves each scheme here, one layer of a small decoder in bfloat16 (half a minute)
    #[arg(long)]
    kernels: bool,
}

/// What one check found.
enum Finding {
    Good(String),
    /// Not needed by everybody.
    Note(String, String),
    Bad(String, String),
}

pub(super) fn exec(args: &DoctorArgs) -> Result<Exit, Failure> {
    open::environment()?;
    if args.kernels {
        return kernels::exec();
    }
    let mut exit = Exit::Done;
    for (name, check) in CHECKS {
        let (mark, text, mend) = match check() {
            Finding::Good(text) => ("ok", text, None),
            Finding::Note(text, mend) => ("--", text, Some(mend)),
            Finding::Bad(text, mend) => {
                exit = Exit::Environment;
                ("!!", text, Some(mend))
            }
        };
        printer::out(format!("{mark}  {name:7} {text}"));
        if let Some(mend) = mend {
            printer::out(format!("            {mend}"));
        }
    }
    Ok(exit)
}

fn worker() -> Finding {
    let path = worker_path();
    if !path.is_file() {
        return Finding::Bad(
            format!("{} is not there", path.display()),
            "scripts/libtorch && cargo build --release --workspace".to_owned(),
        );
    }
    match Worker::spawn(&path, None).and_then(Worker::greet) {
        Ok(_) => Finding::Good(format!("{} runs on libtorch {TORCH_VERSION}", path.display())),
        Err(broken) => Finding::Bad(
            match broken.log.last() {
                Some(line) => format!("{}: {line}", broken.error),
                None => broken.error.to_string(),
            },
            "scripts/libtorch fetches libtorch; then cargo build --release --workspace".to_owned(),
        ),
    }
}

fn cuda() -> Finding {
    let store = open::store().ok();
    let machine = Machine::detect(store.as_ref().map(Store::root));
    if let Some(gpu) = machine.gpus.first() {
        let others = machine.gpus.len() - 1;
        let more = if others > 0 { format!(", and {others} more") } else { String::new() };
        return Finding::Good(format!("{} (sm_{}){more}", gpu.name, gpu.compute_capability));
    }
    Finding::Note(
        format!("no NVIDIA GPU; nodes run on the CPU ({}, {} cores)", machine.cpu_class, machine.cores),
        "with a card: driver 580 or newer, then scripts/libtorch".to_owned(),
    )
}

fn store() -> Finding {
    match open::store() {
        Ok(store) => {
            let root = store.root().display().to_string();
            match tempfile::tempfile_in(store.root()) {
                Ok(_) => Finding::Good(root),
                Err(error) => Finding::Bad(
                    format!("{root} cannot be written: {error}"),
                    "make it writable, or name another folder in QPIPE_CACHE".to_owned(),
                ),
            }
        }
        Err(failure) => {
            Finding::Bad(failure.text().to_owned(), "name another folder in QPIPE_CACHE".to_owned())
        }
    }
}

fn disk() -> Finding {
    let free = open::store()
        .ok()
        .and_then(|store| rustix::fs::statvfs(store.root()).ok())
        .map(|disk| disk.f_bavail * disk.f_frsize);
    match free {
        Some(free) if free >= LITTLE_SPACE => Finding::Good(format!("{} free", size::bytes(free))),
        Some(free) => Finding::Note(
            format!("{} free", size::bytes(free)),
            "a larger disk can be named in QPIPE_CACHE".to_owned(),
        ),
        None => Finding::Note("free space cannot be told".to_owned(), "df -h".to_owned()),
    }
}

fn hub() -> Finding {
    let endpoint = fetch::endpoint();
    match fetch::probe(&endpoint, PATIENCE) {
        Ok(()) => Finding::Good(format!("{endpoint} answers")),
        Err(error) => Finding::Note(
            format!("{endpoint}: {error}"),
            "local paths and pinned sources work without it; HF_ENDPOINT names another".to_owned(),
        ),
    }
}
