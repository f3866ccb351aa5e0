//! How a file is told to be the one that was read, without reading it again.

use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{self, AtFlags, Mode, OFlags};

/// File systems stamp files with a clock of at most this tick (nanoseconds) if they keep fractions of seconds.
pub(crate) const FINE_TICK: i64 = 100_000_000;
/// The same for those that keep whole seconds, or every other one.
const COARSE_TICK: i64 = 3_000_000_000;

/// What of a file's metadata changes when its content may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    pub(crate) modified: i64,
    /// Nanoseconds since 1970; no program can set it.
    pub(crate) changed: i64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec().cast_unsigned()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec().cast_unsigned()),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Of the file at `path`, links followed. The way to it is shorter from an open `folder` than from the root,
    /// which counts where thousands of files are looked at.
    pub(crate) fn at(folder: impl AsFd, path: &Path) -> io::Result<Self> {
        let stat = fs::statat(folder, path, AtFlags::empty())?;
        Ok(Self {
            size: stat.st_size.cast_unsigned(),
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    /// git's rule for racily clean entries: whether any write after the moment `at` (nanoseconds since 1970)
    /// would have changed the stamps.
    pub(crate) fn is_settled(&self, at: i64) -> bool {
        // A modification time can be set to any date, also one to come; the change time cannot.
        let youngest = if self.modified > at { self.changed } else { self.modified.max(self.changed) };
        let tick = if self.changed % 1_000_000_000 == 0 { COARSE_TICK } else { FINE_TICK };
        youngest.saturating_add(tick) < at
    }
}

fn nanoseconds(seconds: i64, rest: u64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add_unsigned(rest)
}

/// A folder for [`Identity::at`]; no permission to list it is needed.
pub(crate) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_looking_see_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
        let open = open_folder(folder.path()).unwrap();
        let seen = Identity::of(&std::fs::metadata(&file).unwrap());
        for path in [Path::new("file"), Path::new("link"), &file] {
            assert_eq!(Identity::at(&open, path).unwrap(), seen, "{}", path.display());
        }
        assert_eq!(Identity::at(&open, Path::new("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn settled_is_judged_by_both_times() {
        let settled = |modified, changed, at| {
            Identity { size: 0, modified, changed, device: 1, inode: 1 }.is_settled(at)
        };
        let second = 1_000_000_000;
        assert!(settled(5, 5 * second + 5, 6 * second));
        assert!(!settled(5, 5 * second + 5, 5 * second + FINE_TICK), "within the tick");
        assert!(!settled(5, 5 * second, 6 * second), "whole seconds: a coarse clock");
        assert!(settled(99 * second, 5 * second + 5, 6 * second), "a date to come says nothing");
    }
}
