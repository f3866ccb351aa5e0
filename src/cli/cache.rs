//! `qpipe cache`.

use clap::{Args, Subcommand};
use qpipe_cache::CorruptBlob;

use super::exit::Exit;
use super::failure::Failure;
use super::open::store;
use super::{bars, printer, size};

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
    let bar = bars::bytes("verify");
    let report = store.verify(&|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report.map_err(|error| Failure::store(&error))?;
    for corrupt in &report.corrupt {
        printer::out(told(corrupt));
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
            (corrupt, _) => format!("{corrupt} corrupt"),
        }
    ));
    Ok(if report.is_sound() { Exit::Done } else { Exit::Environment })
}

/// What became of a corrupt blob.
fn told(corrupt: &CorruptBlob) -> String {
    let CorruptBlob { digest, actual, moved_to } = corrupt;
    match moved_to {
        Some(place) => format!("corrupt: {digest} is {actual}; set aside as {}", place.display()),
        None => format!(
            "corrupt: {digest} is {actual}; it stays where it is, for the store cannot be written, and is still used"
        ),
    }
}

#[cfg(test)]
mod tests {
    use qpipe_cache::Digest;

    use super::*;

    #[test]
    fn what_could_not_be_set_aside_is_not_said_to_be() {
        let (digest, actual) = (Digest::of(b"a"), Digest::of(b"b"));
        let moved = CorruptBlob { digest, actual, moved_to: Some("/s/cas/corrupt/a".into()) };
        assert!(told(&moved).ends_with("; set aside as /s/cas/corrupt/a"));
        let stuck = CorruptBlob { digest, actual, moved_to: None };
        assert!(told(&stuck).contains("stays where it is") && !told(&stuck).contains("set aside"));
    }
}
