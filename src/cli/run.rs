//! `qpipe run`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;
use qpipe_nodes::protocol::Failure as Class;

use super::bars::Bars;
use super::events_jsonl::EventsFile;
use super::exit::Exit;
use super::failure::Failure;
use super::lines::Lines;
use super::logging::LogFormat;
use super::open::{FileArgs, environment, store};
use super::{printer, size, table};
use crate::run::{self, Event, Limits, Observer, Options};

/// Runs a pipeline: looks up what is known, computes the rest, writes the report.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Only these nodes and what they need.
    #[arg(long, value_name = "NODE", num_args = 1..)]
    only: Vec<String>,
    /// Run these although their results are known.
    #[arg(long, value_name = "NODE", num_args = 1..)]
    force: Vec<String>,
    /// Nodes that compute at the same time. In no key.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Memory that running nodes may need together, as far as that can be told: 8GiB.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_memory: Option<u64>,
    /// After a failure go on with what does not depend on it. This is the default.
    #[arg(long, conflicts_with = "fail_fast")]
    keep_going: bool,
    /// After a failure start nothing new.
    #[arg(long)]
    fail_fast: bool,
    /// Fail if the lock file beside the pipeline would change.
    #[arg(long)]
    locked: bool,
    /// Where reports are written: DIR/NAME/.
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Writes every event as a JSON line to this file.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
}

pub(super) fn exec(args: &RunArgs, verbose: u8, format: LogFormat) -> Result<Exit, Failure> {
    environment()?;
    let pipeline = args.file.load()?;
    check_results_folder(&args.results)?;
    let store = store()?;
    let options = Options {
        only: args.only.clone(),
        force: args.force.clone(),
        limits: Limits {
            jobs: usize::from(args.jobs),
            max_memory: args.max_memory,
            fail_fast: args.fail_fast,
        },
        locked: args.locked,
        results: args.results.clone(),
    };
    let bars = std::io::stderr().is_terminal() && verbose == 0 && format == LogFormat::Text;
    let terminal: Box<dyn Observer> = if bars { Box::new(Bars::new()) } else { Box::new(Lines::new()) };
    let events = args.events.as_ref().map(open_events).transpose()?;
    let mut observer = Both { terminal, events };
    let outcome = run::run(&pipeline, &store, &options, &mut observer)
        .map_err(|error| Failure::run(&pipeline, &error))?;

    for report in &outcome.published {
        printer::out(&report.table);
    }
    printer::err(table::run(&outcome.summary));
    for report in &outcome.published {
        printer::err(format!("{}: {}", report.node, report.folder.display()));
    }
    let exit = if outcome.interrupted {
        Exit::Interrupted
    } else if outcome.failures.is_empty() {
        Exit::Done
    } else if outcome.failures.iter().all(|(_, class)| *class == Class::Surroundings) {
        Exit::Environment
    } else {
        Exit::NodeFailed
    };
    // The process ends here: nobody needs thousands of nodes taken apart one by one.
    std::mem::forget((pipeline, outcome));
    Ok(exit)
}

/// An error where the folder of results could not be made.
fn check_results_folder(results: &Path) -> Result<(), Failure> {
    match results.ancestors().find(|path| path.exists()) {
        Some(path) if !path.is_dir() => Err(Failure::environment(
            format!("--results {}: `{}` is not a folder", results.display(), path.display()),
            Some("Name a folder, or a path that does not exist yet."),
        )),
        _ => Ok(()),
    }
}

fn open_events(path: &PathBuf) -> Result<EventsFile, Failure> {
    let file = File::create(path)
        .map_err(|error| Failure::environment(format!("--events {}: {error}", path.display()), None))?;
    Ok(EventsFile::new(BufWriter::new(file)))
}

struct Both {
    terminal: Box<dyn Observer>,
    events: Option<EventsFile>,
}

impl Observer for Both {
    fn on(&mut self, event: &Event) {
        self.terminal.on(event);
        if let Some(events) = &mut self.events {
            events.on(event);
        }
    }
}
