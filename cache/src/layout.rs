//! Where things lie in a store's folder, and the version of that arrangement.
//!
//! ```text
//! format                   `qpipe-store 1`, written last when a store is made
//! CACHEDIR.TAG .gitignore  backup programs and git leave the folder alone
//! cas/ab/HEX               blobs by digest, read-only; ab are the first two digits
//! cas/corrupt/             what `verify` moved out
//! actions/KIND/ab/KEY.json records by key
//! failures/KEY             why an action fails every time
//! locks/KEY                claims that are held (and those of killed processes, which bind nobody)
//! staging/KEY/ATTEMPT/     what a claimed action writes before its commit
//! runs/ID/                 events, log and plan of each run
//! memos/NAME               what the records of a pipeline said, and when that still holds (see `memo`)
//! stat.log                 digests of unchanged files outside of the store
//! ```

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::replace::{PREFIX, Replacement};
use crate::{Digest, StoreError};

/// The arrangement that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "format";
const FORMAT_WORD: &str = "qpipe-store ";
const TAG_FILE: &str = "CACHEDIR.TAG";
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This folder is a store of qpipe. It can be removed: what is needed is computed again.\n";
const IGNORE_FILE: &str = ".gitignore";
const FOLDERS: [&str; 5] = [CAS, ACTIONS, LOCKS, STAGING, RUNS];

const CAS: &str = "cas";
const ACTIONS: &str = "actions";
const LOCKS: &str = "locks";
const STAGING: &str = "staging";
const RUNS: &str = "runs";
const MEMOS: &str = "memos";
const FAILURES: &str = "failures";
const STAT_LOG: &str = "stat.log";
/// What qpipe itself keeps in the store's folder.
const GUESTS: [&str; 3] = ["cuda", "downloads", "gpu.json"];
const CORRUPT: &str = "corrupt";

/// The paths of one store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The paths below `root`, which is an absolute path.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn cas(&self) -> PathBuf {
        self.root.join(CAS)
    }

    pub(crate) fn corrupt(&self) -> PathBuf {
        self.cas().join(CORRUPT)
    }

    pub(crate) fn actions(&self) -> PathBuf {
        self.root.join(ACTIONS)
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join(RUNS)
    }

    /// Where the memo of the pipeline `name` is; `None` if that is no name for a file.
    pub(crate) fn memo(&self, name: &str) -> Option<PathBuf> {
        is_plain_name(name).then(|| self.root.join(MEMOS).join(name))
    }

    pub(crate) fn stat_log(&self) -> PathBuf {
        self.root.join(STAT_LOG)
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        sharded(&self.cas(), digest, "")
    }

    pub(crate) fn record(&self, kind: &str, key: &Digest) -> PathBuf {
        self.root.join(ACTIONS).join(Self::record_name(kind, key))
    }

    /// [`Layout::record`] below [`Layout::actions`].
    pub(crate) fn record_name(kind: &str, key: &Digest) -> PathBuf {
        sharded(kind.as_ref(), key, ".json")
    }

    pub(crate) fn failures(&self) -> PathBuf {
        self.root.join(FAILURES)
    }

    pub(crate) fn failure(&self, key: &Digest) -> PathBuf {
        self.failures().join(key.to_string())
    }

    pub(crate) fn lock(&self, key: &Digest) -> PathBuf {
        self.root.join(LOCKS).join(key.to_string())
    }

    pub(crate) fn staging(&self, key: &Digest) -> PathBuf {
        self.root.join(STAGING).join(key.to_string())
    }

    /// The format version of the store there; `None` where there is none yet.
    pub(crate) fn read_format(&self) -> Result<Option<u32>, StoreError> {
        let path = self.root.join(FORMAT_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(StoreError::NotAFolder { root: self.root.clone() });
            }
            Err(error) => return Err(error.into()),
        };
        let version = text.strip_prefix(FORMAT_WORD).and_then(|rest| rest.trim_end().parse().ok());
        match version {
            None => Err(StoreError::UnreadableFormat { path }),
            Some(found) if found > FORMAT => {
                Err(StoreError::NewerFormat { root: self.root.clone(), found, supported: FORMAT })
            }
            Some(found) => Ok(Some(found)),
        }
    }

    /// Whether all folders are there: people remove `cas/` or `staging/` by hand when a disk is full.
    pub(crate) fn is_whole(&self) -> bool {
        FOLDERS.iter().all(|folder| self.root.join(folder).is_dir())
    }

    /// Makes an empty store, or what one lacks. Several processes may do so at once, and one that was killed
    /// half-way is finished by the next: the format file comes last.
    pub(crate) fn create(&self) -> Result<(), StoreError> {
        fs::create_dir_all(&self.root).map_err(StoreError::writing)?;
        self.refuse_foreign_folder()?;
        for folder in FOLDERS {
            fs::create_dir_all(self.root.join(folder)).map_err(StoreError::writing)?;
        }
        self.put(TAG_FILE, TAG)?;
        self.put(IGNORE_FILE, "*\n")?;
        self.put(FORMAT_FILE, &format!("{FORMAT_WORD}{FORMAT}\n"))?;
        fs::File::open(&self.root)?.sync_all().map_err(StoreError::writing)
    }

    /// A folder with other things in it was hardly meant: a `.gitignore` of `*` there would hide them.
    fn refuse_foreign_folder(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let ours = FOLDERS.contains(&name.as_str())
                || [FORMAT_FILE, TAG_FILE, IGNORE_FILE, STAT_LOG, MEMOS, FAILURES, "lost+found"]
                    .contains(&name.as_str())
                || GUESTS.contains(&name.as_str())
                || name.starts_with(PREFIX)
                // As earlier versions named what they wrote.
                || name.starts_with(".tmp");
            if !ours {
                return Err(StoreError::NotAStore { root: self.root.clone(), entry: name });
            }
        }
        Ok(())
    }

    fn put(&self, name: &str, text: &str) -> Result<(), StoreError> {
        replace_file(&self.root.join(name), text.as_bytes()).map_err(StoreError::writing)
    }
}

/// `folder/ab/HEXsuffix`, built in one allocation: there are tens of thousands of them in a run.
fn sharded(folder: &Path, digest: &Digest, suffix: &str) -> PathBuf {
    let hex = blake3::Hash::from_bytes(digest.0).to_hex();
    let mut path = std::ffi::OsString::with_capacity(folder.as_os_str().len() + 80);
    path.push(folder);
    path.push("/");
    path.push(&hex[..2]);
    path.push("/");
    path.push(hex.as_str());
    path.push(suffix);
    path.into()
}

/// Whether `kind` can name a folder.
pub(crate) fn is_plain_name(kind: &str) -> bool {
    !kind.is_empty() && !kind.starts_with('.') && !kind.contains(['/', '\0'])
}

/// Replaces the file at `path`; what it holds then survives a power cut.
pub(crate) fn replace_file(path: &Path, mut bytes: &[u8]) -> std::io::Result<()> {
    Replacement::new(path.to_owned(), &mut bytes)?.sync()?.put()?;
    Ok(())
}

/// `error` with a path, for the calls that `fs_err` does not wrap.
pub(crate) fn named(error: std::io::Error, action: &str, path: &Path) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("failed to {action} `{}`: {error}", path.display()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().join("store"));
        (folder, layout)
    }

    #[test]
    fn a_new_store_is_tagged_and_versioned() {
        let (_folder, layout) = layout();
        assert_eq!(layout.read_format().unwrap(), None);
        layout.create().unwrap();
        layout.create().unwrap();
        assert_eq!(layout.read_format().unwrap(), Some(FORMAT));
        let tag = fs::read_to_string(layout.root().join("CACHEDIR.TAG")).unwrap();
        assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
        assert_eq!(fs::read_to_string(layout.root().join(".gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn a_newer_store_and_nonsense_are_refused() {
        let (_folder, layout) = layout();
        layout.create().unwrap();
        fs::write(layout.root().join("format"), "qpipe-store 7\n").unwrap();
        let error = layout.read_format().unwrap_err();
        assert!(matches!(error, StoreError::NewerFormat { found: 7, supported: FORMAT, .. }));
        assert!(error.to_string().contains(&layout.root().display().to_string()), "{error}");
        fs::write(layout.root().join("format"), "something\n").unwrap();
        assert!(matches!(layout.read_format(), Err(StoreError::UnreadableFormat { .. })));
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_left_alone() {
        let (_folder, layout) = layout();
        fs::create_dir_all(layout.root()).unwrap();
        fs::write(layout.root().join("thesis.tex"), "x").unwrap();
        assert!(matches!(layout.create(), Err(StoreError::NotAStore { entry, .. }) if entry == "thesis.tex"));
        assert!(!layout.root().join(".gitignore").exists());
    }

    #[test]
    fn paths_are_sharded_by_the_first_two_digits() {
        let layout = Layout::new("/s".into());
        let digest = Digest::of(b"abc");
        assert_eq!(layout.blob(&digest), Path::new(&format!("/s/cas/64/{digest}")));
        assert_eq!(layout.record("sft", &digest), Path::new(&format!("/s/actions/sft/64/{digest}.json")));
    }
}
