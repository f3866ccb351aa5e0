//! Files that are replaced in one step: whole, or as they were.
//!
//! The new content is written beside its place under a name of its own and moved there at the end. A process that is killed
//! in between leaves that name behind; [`sweep`] removes it when it is nobody's any more.

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use tempfile::NamedTempFile;

use crate::layout::named;

/// How the names begin under which files are written.
pub(crate) const PREFIX: &str = ".qpipe-new-";
/// A file this young may be one whose owner has not locked it yet.
const YOUNG: Duration = Duration::from_secs(2);

/// A file that is written, and not yet in its place.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    file: NamedTempFile,
}

impl Replacement {
    /// Writes `content` beside `path`.
    ///
    /// # Errors
    /// I/O errors with the path.
    pub fn new(path: PathBuf, content: &mut impl Read) -> io::Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut write = || -> io::Result<NamedTempFile> {
            let mut file = temporary_in(folder)?;
            // Says that somebody still writes it. Where a file system has no locks, files are young for long enough.
            let _ = file.as_file().try_lock();
            io::copy(content, file.as_file_mut())?;
            file.as_file_mut().flush()?;
            Ok(file)
        };
        let file = write().map_err(|error| named(error, "write", &path))?;
        Ok(Self { path, file })
    }

    /// Has the content written to the disk itself, for files that must survive a power cut.
    ///
    /// # Errors
    /// I/O errors with the path.
    pub fn sync(self) -> io::Result<Self> {
        self.file.as_file().sync_all().map_err(|error| named(error, "write", &self.path))?;
        Ok(self)
    }

    /// Puts it there, and says where.
    ///
    /// # Errors
    /// I/O errors with the path.
    pub fn put(self) -> io::Result<PathBuf> {
        let Self { path, file } = self;
        match file.persist(&path) {
            Ok(_) => Ok(path),
            Err(error) => Err(named(error.error, "write", &path)),
        }
    }
}

/// Removes from `folder` what killed processes left of their replacements. What cannot be removed stays: it harms nobody.
pub fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    let age = file.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
    matches!(age, Ok(Ok(age)) if age >= YOUNG) && file.file().try_lock().is_ok()
}

/// A new file in `folder`, readable for others as far as the umask allows: temporary files are private by default.
pub(crate) fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(|error| named(error, "create a file in", folder))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let new = Replacement::new(path.clone(), &mut "new".as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(new.put().unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let age = |path: &Path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.file().set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        };
        for name in [".qpipe-new-left", ".qpipe-new-young", ".qpipe-notes", "report.md"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        age(&folder.path().join(".qpipe-new-left"));
        age(&folder.path().join(".qpipe-notes"));
        age(&folder.path().join("report.md"));
        let written = Replacement::new(folder.path().join("b"), &mut "b".as_bytes()).unwrap();
        age(written.file.path());
        sweep(folder.path());
        written.put().unwrap();
        assert_eq!(names(folder.path()), [".qpipe-new-young", ".qpipe-notes", "b", "report.md"]);
    }
}
