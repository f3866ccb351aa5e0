//! Digests of files outside of the store, without reading unchanged files again.
//!
//! A file whose path, size, modification time, change time, device and inode are as they were when it was
//! hashed has the digest that it had, unless it was written within one tick of the clock that the file
//! system stamps it with. So, as in git, an entry is only trusted if the file was last changed well before
//! it was hashed; a younger file is hashed again the next time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock};

use fs_err as fs;
use rayon::prelude::*;
use rustix::fs::CWD;

use crate::identity::{Identity, now, open_folder};
use crate::stat_log::{self, Entries, Hashed};
use crate::tree::{Entry, Tree};
use crate::walk::walk;
use crate::{Digest, StoreError};

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;

/// Remembers digests between runs. Shared by threads; several processes may use the same log.
#[derive(Debug)]
pub struct StatCache {
    log: PathBuf,
    working_folder: OnceLock<(OwnedFd, PathBuf)>,
    entries: OnceLock<RwLock<Entries>>,
}

impl StatCache {
    /// The cache kept in the file `log`, which is read on first use and need not exist.
    pub fn new(log: PathBuf) -> Self {
        Self { log, working_folder: OnceLock::new(), entries: OnceLock::new() }
    }

    /// Digest and size (bytes) of a file.
    ///
    /// # Errors
    /// When it cannot be read, is no file, or changes each time it is read.
    pub fn digest_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let tree = self.digest_tree(path, &|_| true)?;
        match tree.single_file() {
            Some(entry) => Ok((entry.digest, entry.size)),
            None => Err(StoreError::NotAFile { path: path.to_owned() }),
        }
    }

    /// The listing of a folder, of those files whose relative path passes `filter`; or of a single file,
    /// whose name is then no part of the listing. Relative paths start at the folder that the process worked in
    /// when it first asked. Links are followed; files are hashed in parallel.
    ///
    /// # Errors
    /// Broken links, names that are not UTF-8, things that are neither file nor folder, and read errors.
    pub fn digest_tree(&self, path: &Path, filter: &dyn Fn(&str) -> bool) -> Result<Tree, StoreError> {
        let (folder, root) =
            self.located(path).map_err(|error| crate::layout::named(error, "resolve", path))?;
        if let Some(entry) = self.unchanged_file(folder, path, &root) {
            return Ok(Tree { files: [(String::new(), entry)].into() });
        }
        let found = walk(&root, filter)?;
        let mut digests: Vec<Option<Hashed>> = {
            let entries = self.entries().read().unwrap_or_else(PoisonError::into_inner);
            found.iter().map(|file| known(&entries, &file.path, &Identity::of(&file.metadata))).collect()
        };
        let missing: Vec<usize> = (0..found.len()).filter(|index| digests[*index].is_none()).collect();
        if !missing.is_empty() {
            // No lock is held here: rayon may run other work of ours on this thread while it waits.
            let hash = |index: &usize| Ok((*index, hash(&found[*index].path)?));
            let hashed: Vec<(usize, Hashed)> = match missing.as_slice() {
                [one] => vec![hash(one)?],
                many => many.par_iter().map(hash).collect::<Result<_, StoreError>>()?,
            };
            self.remember(hashed.iter().map(|(index, hashed)| (found[*index].path.as_path(), *hashed)));
            for (index, hashed) in hashed {
                digests[index] = Some(hashed);
            }
        }
        let mut tree = Tree::default();
        for (file, hashed) in found.into_iter().zip(digests) {
            let hashed = hashed.expect("every file is either known or was hashed above");
            tree.files.insert(file.relative, Entry { digest: hashed.digest, size: hashed.identity.size });
        }
        Ok(tree)
    }

    /// The absolute form of `path`, and where `path` itself starts. The working folder is opened once: there may
    /// be thousands of relative paths.
    fn located(&self, path: &Path) -> io::Result<(BorrowedFd<'_>, PathBuf)> {
        if path.is_absolute() || path.as_os_str().is_empty() {
            return Ok((CWD, std::path::absolute(path)?));
        }
        let (folder, name) = match self.working_folder.get() {
            Some(folder) => folder,
            None => {
                let name = std::env::current_dir()?;
                let folder = open_folder(&name)?;
                self.working_folder.get_or_init(|| (folder, name))
            }
        };
        Ok((folder.as_fd(), name.join(path)))
    }

    /// What is known of the file at `path`, which is `root` seen from `folder`, at the cost of one system call.
    fn unchanged_file(&self, folder: BorrowedFd<'_>, path: &Path, root: &Path) -> Option<Entry> {
        let identity = Identity::at(folder, path).ok()?;
        let entries = self.entries().read().unwrap_or_else(PoisonError::into_inner);
        let hashed = known(&entries, root, &identity)?;
        Some(Entry { digest: hashed.digest, size: identity.size })
    }

    fn entries(&self) -> &RwLock<Entries> {
        self.entries.get_or_init(|| RwLock::new(stat_log::load(&self.log)))
    }

    /// Keeps what can be trusted later. A log that cannot be written only costs time.
    fn remember<'a>(&self, hashed: impl Iterator<Item = (&'a Path, Hashed)>) {
        let settled: Vec<(&str, Hashed)> = hashed
            .filter(|(_, h)| h.identity.is_settled(h.at))
            .filter_map(|(path, h)| Some((path.to_str()?, h)))
            .collect();
        if settled.is_empty() {
            return;
        }
        let lines: Vec<(&str, &Hashed)> = settled.iter().map(|(path, hashed)| (*path, hashed)).collect();
        if let Err(error) = stat_log::append(&self.log, &lines) {
            tracing::debug!(%error, "the stat cache was not written");
        }
        let mut entries = self.entries().write().unwrap_or_else(PoisonError::into_inner);
        entries.extend(settled.into_iter().map(|(path, hashed)| (path.to_owned(), hashed)));
    }
}

fn known(entries: &Entries, path: &Path, identity: &Identity) -> Option<Hashed> {
    let hashed = entries.get(path.to_str()?)?;
    (hashed.identity == *identity && identity.is_settled(hashed.at)).then_some(*hashed)
}

/// Hashes a file that has the same stamps before and after.
fn hash(path: &Path) -> Result<Hashed, StoreError> {
    for _ in 0..ATTEMPTS {
        let at = now();
        let before = Identity::of(&fs::metadata(path)?);
        let digest = Digest::of_file(path)?;
        let after = Identity::of(&fs::metadata(path)?);
        if before == after {
            return Ok(Hashed { digest, identity: before, at });
        }
    }
    Err(StoreError::Changing { path: path.to_owned() })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::FINE_TICK;

    struct Fixture {
        folder: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn log(&self) -> PathBuf {
            self.folder.path().join("stat.log")
        }

        fn cache(&self) -> StatCache {
            StatCache::new(self.log())
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.folder.path().join("data").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        fn log_length(&self) -> u64 {
            std::fs::metadata(self.log()).map_or(0, |metadata| metadata.len())
        }
    }

    fn settle() {
        std::thread::sleep(Duration::from_nanos(FINE_TICK as u64) + Duration::from_millis(20));
    }

    #[test]
    fn a_second_look_reads_and_writes_nothing() {
        let fixture = Fixture::new();
        let path = fixture.write("a/b.txt", "hello");
        settle();
        let tree = fixture.cache().digest_tree(&fixture.folder.path().join("data"), &|_| true).unwrap();
        assert_eq!(tree.files["a/b.txt"], Entry { digest: Digest::of(b"hello"), size: 5 });
        let length = fixture.log_length();
        assert!(length > 0);

        let cache = fixture.cache();
        let identity = Identity::of(&fs::metadata(&path).unwrap());
        assert_eq!(cache.digest_file(&path).unwrap().0, Digest::of(b"hello"));
        let entries = cache.entries().read().unwrap();
        assert_eq!(entries[path.to_str().unwrap()].identity, identity);
        assert_eq!(fixture.log_length(), length, "nothing changed, nothing written");
    }

    #[test]
    fn what_the_log_says_is_believed_only_for_the_same_file() {
        let fixture = Fixture::new();
        let path = fixture.write("a", "old");
        settle();
        fixture.cache().digest_file(&path).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        // Same size, same modification time: only the change time tells.
        fs::write(&path, "new").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(fixture.cache().digest_file(&path).unwrap().0, Digest::of(b"new"));
    }

    #[test]
    fn a_file_of_this_very_moment_is_hashed_again() {
        let fixture = Fixture::new();
        let path = fixture.write("a", "one");
        let cache = fixture.cache();
        assert_eq!(cache.digest_file(&path).unwrap().0, Digest::of(b"one"));
        assert_eq!(fixture.log_length(), 0, "not trusted, so not kept");
        fs::write(&path, "two").unwrap();
        assert_eq!(cache.digest_file(&path).unwrap().0, Digest::of(b"two"));
    }

    #[test]
    fn torn_and_foreign_lines_are_skipped() {
        let fixture = Fixture::new();
        let paths = [fixture.write("a", "1"), fixture.write("b", "2"), fixture.write("c", "3")];
        settle();
        let cache = fixture.cache();
        for path in &paths {
            cache.digest_file(path).unwrap();
        }
        let mut bytes = fs::read(fixture.log()).unwrap();
        bytes.truncate(bytes.len() - 20);
        bytes.extend_from_slice(b"\xff\xfe nonsense\n\n");
        fs::write(fixture.log(), &bytes).unwrap();
        let entries = stat_log::load(&fixture.log());
        assert_eq!(entries.len(), 2);
        assert_eq!(fixture.cache().digest_file(&paths[2]).unwrap().0, Digest::of(b"3"));
    }

    #[test]
    fn a_grown_log_is_rewritten_without_what_vanished() {
        let fixture = Fixture::new();
        let path = fixture.write("a", "1");
        settle();
        fixture.cache().digest_file(&path).unwrap();
        let kept = fixture.cache().entries().read().unwrap()[path.to_str().unwrap()];
        let gone = "/gone/".repeat(40);
        for _ in 0..4 {
            let lines: Vec<(&str, &Hashed)> = (0..2000).map(|_| (gone.as_str(), &kept)).collect();
            stat_log::append(&fixture.log(), &lines).unwrap();
        }
        assert!(fixture.log_length() < 2 << 20, "{} bytes", fixture.log_length());
        let entries = stat_log::load(&fixture.log());
        assert_eq!(entries[path.to_str().unwrap()], kept);
    }

    #[test]
    fn ten_thousand_entries_load_quickly() {
        let fixture = Fixture::new();
        let identity = Identity {
            size: 1 << 34,
            modified: i64::MAX / 3,
            changed: i64::MAX / 3,
            device: 65_025,
            inode: 1 << 40,
        };
        let entries: Vec<(String, Hashed)> = (0..10_000)
            .map(|i| {
                let path = format!("/home/somebody/projects/study/models/checkpoint-{i}/model.safetensors");
                (path, Hashed { digest: Digest::of(&[i as u8]), identity, at: i64::MAX / 2 })
            })
            .collect();
        let lines: Vec<(&str, &Hashed)> =
            entries.iter().map(|(path, hashed)| (path.as_str(), hashed)).collect();
        stat_log::append(&fixture.log(), &lines).unwrap();
        let best = (0..5)
            .map(|_| {
                let start = cpu_time();
                assert_eq!(stat_log::load(&fixture.log()).len(), 10_000);
                cpu_time() - start
            })
            .min()
            .unwrap();
        // The aim is 10 ms on an idle core; the bound leaves room for a busy machine's cold caches.
        assert!(best < Duration::from_millis(25), "{best:?}");
    }

    /// Time that this thread has spent on a processor: other tests run at the same time.
    fn cpu_time() -> Duration {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    #[test]
    fn filters_and_links_apply() {
        let fixture = Fixture::new();
        fixture.write("model.safetensors", "w");
        fixture.write("notes.md", "n");
        let data = fixture.folder.path().join("data");
        std::os::unix::fs::symlink("model.safetensors", data.join("link.safetensors")).unwrap();
        let tree = fixture.cache().digest_tree(&data, &|path| path.ends_with(".safetensors")).unwrap();
        assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["link.safetensors", "model.safetensors"]);
        assert_eq!(tree.files["link.safetensors"], tree.files["model.safetensors"]);
    }
}
