//! `qpipe cache`.

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::failure::Failure;
use super::open::store;
use super::{printer, size};

/// Looks after the store.
#[derive(Debug, Args)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Reads every blob and compares it with its digest; what is corrupt is set aside and computed again
    /// by the next run.
    Verify,
}

pub(super) fn exec(args: &CacheArgs) -> Result<Exit, Failure> {
    match args.command {
        CacheCommand::Verify => verify(),
    }
}

fn verify() -> Result<Exit, Failure> {
    let store = store()?;
    let report = store.verify(&|_, _| {}).map_err(|error| Failure::store(&error))?;
    for corrupt in &report.corrupt {
        printer::out(format!("corrupt: {} is {}", corrupt.digest, corrupt.actual));
    }
    for record in &report.records_broken {
        let node = record.node.as_deref().unwrap_or("unknown node");
        printer::out(format!("will run again: {node} ({})", record.fault));
    }
    printer::out(format!(
        "{} blobs, {}: {}",
        report.blobs,
        size::bytes(report.bytes),
        match (report.corrupt.len(), report.records_broken.len()) {
            (0, 0) => "all as they were written".to_owned(),
            (0, records) => format!("all as they were written, but {records} of {} records", report.records),
            (corrupt, _) => format!("{corrupt} corrupt, set aside"),
        }
    ));
    Ok(if report.is_sound() { Exit::Done } else { Exit::Environment })
}
