//! One holder of a key at a time, among threads and processes.
//!
//! A lock is `flock` on an open file description: it dies with its process, so nobody ever unlocks by
//! hand, and two threads of one process exclude each other too. The lock file goes away with the lock:
//! whoever acquires a lock checks that the file it locked is still the one at the path, and starts over if
//! the previous holder removed it in between.

use std::fs::TryLockError;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

/// A held lock; released when dropped.
#[derive(Debug)]
pub(crate) struct KeyLock {
    file: fs::File,
    path: PathBuf,
}

impl KeyLock {
    /// Takes the lock at `path` if nobody holds it.
    pub(crate) fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(TryLockError::Error(error)) => return Err(crate::layout::named(error, "lock", path)),
            }
            if is_still_at(&file, path)? {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
        }
    }

    /// Takes the lock at `path`, waiting for its holder.
    pub(crate) fn acquire(path: &Path) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            match file.lock() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if is_still_at(&file, path)? {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Says who holds the lock, for the messages of those who wait.
    pub(crate) fn describe(&mut self, holder: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(holder.as_bytes())
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // The file first: once unlocked it may be another's. Unlocking by hand and not by closing, because a
        // child process that is being started may hold a copy of the descriptor for a moment.
        let removed = fs::remove_file(&self.path);
        let unlocked = self.file.unlock();
        if let Err(error) = removed.and(unlocked) {
            tracing::debug!(%error, "a lock file stays behind");
        }
    }
}

/// Who holds the lock at `path`, as they said themselves.
pub(crate) fn holder(path: &Path) -> String {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn is_still_at(file: &fs::File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((held.dev(), held.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(crate::layout::named(error, "look at", path)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_second_thread_is_kept_out_until_the_first_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut held = KeyLock::try_acquire(&path).unwrap().unwrap();
        held.describe("pid 1 on box").unwrap();
        assert!(KeyLock::try_acquire(&path).unwrap().is_none());
        assert_eq!(holder(&path), "pid 1 on box");
        drop(held);
        assert!(!path.exists(), "no litter");
        assert!(KeyLock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn many_threads_never_hold_it_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let held = KeyLock::acquire(&path).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
    }
}
