//! Which store a command uses.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::{Store, StoreError};

/// The variable that names the store's folder.
pub const STORE_VARIABLE: &str = "QPIPE_CACHE";
/// The folder's name where the variable is not set.
pub const STORE_FOLDER: &str = ".qpipe";

impl Store {
    /// Opens the store for a command started in `cwd`: the one that `QPIPE_CACHE` names, else the first
    /// `.qpipe` from `cwd` upward, else a new one in `cwd`.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn discover(cwd: &Path) -> Result<Self, StoreError> {
        Self::open(&locate(cwd, std::env::var_os(STORE_VARIABLE)))
    }
}

fn locate(cwd: &Path, variable: Option<OsString>) -> PathBuf {
    match variable {
        Some(path) if !path.is_empty() => cwd.join(path),
        _ => cwd
            .ancestors()
            .map(|folder| folder.join(STORE_FOLDER))
            .find(|store| store.is_dir())
            .unwrap_or_else(|| cwd.join(STORE_FOLDER)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use fs_err as fs;

    use super::*;

    #[test]
    fn the_variable_then_upward_then_here() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("study/pipelines");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(locate(&deep, None), deep.join(".qpipe"));
        assert_eq!(locate(&deep, Some("".into())), deep.join(".qpipe"));
        fs::create_dir(folder.path().join("study/.qpipe")).unwrap();
        assert_eq!(locate(&deep, None), folder.path().join("study/.qpipe"));
        assert_eq!(locate(&deep, Some("shared".into())), deep.join("shared"));
        assert_eq!(locate(&deep, Some("/big/disk".into())), Path::new("/big/disk"));
    }
}
