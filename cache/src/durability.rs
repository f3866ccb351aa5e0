//! Makes files and folders durable, one round for all commits that are due.
//!
//! Nodes that finish together would otherwise each wait for syncs of their own. The first commit that
//! finds no round under way leads one for everything queued; those that arrive meanwhile queue up for the
//! next round and wait. Paths that several commits name (the shard folders of the store) are synced once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use fs_err as fs;

/// The queue of one store.
#[derive(Debug, Default)]
pub(crate) struct GroupSync {
    state: Mutex<State>,
    round_done: Condvar,
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
    folders: Vec<PathBuf>,
}

impl GroupSync {
    /// Returns when the content of all `files` and the entries of all `folders` are on the disk.
    pub(crate) fn sync(&self, files: Vec<PathBuf>, folders: Vec<PathBuf>) -> io::Result<()> {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queued.push(Request { ticket, files, folders });
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Syncs each path once and tells every request how its own paths fared.
///
/// Files come first: syncing one makes a journaling file system write out its journal, and with it the
/// folders' new entries, so that the folders cost next to nothing.
fn run(round: &[Request]) -> Vec<(u64, io::Result<()>)> {
    let files: BTreeSet<&Path> =
        round.iter().flat_map(|request| &request.files).map(PathBuf::as_path).collect();
    let folders: BTreeSet<&Path> =
        round.iter().flat_map(|request| &request.folders).map(PathBuf::as_path).collect();
    tracing::trace!(requests = round.len(), files = files.len(), folders = folders.len(), "sync");
    let mut failures: BTreeMap<&Path, io::Error> = BTreeMap::new();
    for path in files.into_iter().chain(folders) {
        if let Err(error) = fs::File::open(path).and_then(|file| file.sync_all()) {
            failures.insert(path, error);
        }
    }
    let outcome = |request: &Request| {
        let mut paths = request.files.iter().chain(&request.folders);
        let failure = paths.find_map(|path| failures.get(path.as_path()));
        failure.map_or(Ok(()), |error| Err(io::Error::new(error.kind(), error.to_string())))
    };
    round.iter().map(|request| (request.ticket, outcome(request))).collect()
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
                        group.sync(vec![good], vec![folder.to_owned()]).unwrap();
                        let missing = folder.join(format!("missing-{thread}"));
                        let error = group.sync(vec![missing.clone()], vec![folder.to_owned()]).unwrap_err();
                        assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
                    }
                });
            }
        });
        assert!(group.state.lock().unwrap().finished.is_empty());
    }
}
