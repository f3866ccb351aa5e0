//! Makes contents and names durable, one round for all commits that are due.
//!
//! *Contents* are synced before a file gets its name in the store. Nodes that finish together would each
//! wait for syncs of their own; instead, the first commit that finds no round under way leads one for
//! everything queued, and those that arrive meanwhile queue up for the next round and wait.
//!
//! *Names*, the entries of the store's folders, are synced once at the end of a run ([`GroupSync::settle`]).
//! A power cut before that can forget a name, and with it a result, but cannot make a wrong hit: a record
//! whose blobs have no names is a miss. Disks with a budget of flushes notice the difference: a node costs
//! two instead of five.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use fs_err as fs;

/// The queue of one store.
#[derive(Debug, Default)]
pub(crate) struct GroupSync {
    state: Mutex<State>,
    round_done: Condvar,
    unsettled: Mutex<BTreeSet<PathBuf>>,
}

#[derive(Debug, Default)]
struct State {
    next_ticket: u64,
    queued: Vec<Request>,
    finished: BTreeMap<u64, io::Result<()>>,
    leading: bool,
}

#[derive(Debug)]
struct Request {
    ticket: u64,
    files: Vec<PathBuf>,
}

impl GroupSync {
    /// Returns when the content of all `files` is on the disk.
    pub(crate) fn sync(&self, files: Vec<PathBuf>) -> io::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queued.push(Request { ticket, files });
        loop {
            if let Some(result) = state.finished.remove(&ticket) {
                return result;
            }
            if state.leading {
                state = self.round_done.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            let round = std::mem::take(&mut state.queued);
            drop(state);
            let results = run(&round);
            state = self.lock();
            state.finished.extend(results);
            state.leading = false;
            self.round_done.notify_all();
        }
    }

    /// Notes folders that have new entries.
    pub(crate) fn later(&self, folders: impl IntoIterator<Item = PathBuf>) {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).extend(folders);
    }

    /// Returns when the entries of all folders noted so far are on the disk.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let folders = std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
        for folder in &folders {
            match fs::File::open(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => opened?.sync_all()?,
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Syncs each file and tells every request how its own fared.
fn run(round: &[Request]) -> Vec<(u64, io::Result<()>)> {
    tracing::trace!(requests = round.len(), "sync");
    let sync = |path: &PathBuf| fs::File::open(path)?.sync_all();
    round.iter().map(|request| (request.ticket, request.files.iter().try_for_each(sync))).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn each_commit_hears_about_its_own_paths() {
        let folder = tempfile::tempdir().unwrap();
        let group = GroupSync::default();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (group, folder) = (&group, folder.path());
                scope.spawn(move || {
                    for round in 0..10 {
                        let good = folder.join(format!("{thread}-{round}"));
                        fs::write(&good, "x").unwrap();
                        group.sync(vec![good]).unwrap();
                        let missing = folder.join(format!("missing-{thread}"));
                        let error = group.sync(vec![missing.clone()]).unwrap_err();
                        assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
                        group.later([folder.to_owned()]);
                    }
                });
            }
        });
        assert!(group.state.lock().unwrap().finished.is_empty());
        assert_eq!(group.unsettled.lock().unwrap().len(), 1);
        group.settle().unwrap();
        assert!(group.unsettled.lock().unwrap().is_empty());
    }
}
