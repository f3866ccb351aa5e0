//! `qpipe show`.

use clap::Args;
use fs_err as fs;

use super::exit::Exit;
use super::failure::Failure;
use super::open::store;
use super::{printer, table};
use crate::run::{SUMMARY_FILE, Summary};

/// Shows the results of a run; of the last one if none is named.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The run's name, as its table says it; `list` names them all.
    run: Option<String>,
}

pub(super) fn exec(args: &ShowArgs) -> Result<Exit, Failure> {
    let store = store()?;
    let runs = store.runs_dir();
    let mut names: Vec<String> = fs::read_dir(&runs)
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.sort();
    if args.run.as_deref() == Some("list") {
        for name in names {
            printer::out(name);
        }
        return Ok(Exit::Done);
    }
    let name = match &args.run {
        Some(run) if names.contains(run) => run.clone(),
        Some(run) => return Err(Failure::usage(format!("there is no run `{run}` in {}", runs.display()))),
        None => match names.iter().rev().find(|name| runs.join(name).join(SUMMARY_FILE).exists()) {
            Some(name) => name.clone(),
            None => return Err(Failure::usage(format!("no run has ended yet in {}", runs.display()))),
        },
    };
    let file = runs.join(&name).join(SUMMARY_FILE);
    let text = fs::read(&file).map_err(|_| {
        Failure::usage(format!("run `{name}` did not end; {} has what happened", runs.join(&name).display()))
    })?;
    let summary: Summary = serde_json::from_slice(&text)
        .map_err(|error| Failure::environment(format!("{}: {error}", file.display()), None))?;
    for (folder, table) in &summary.reports {
        printer::out(table);
        printer::err(format!("{}", folder.display()));
    }
    printer::err(table::run(&summary));
    Ok(Exit::Done)
}
