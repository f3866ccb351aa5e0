//! The lock file beside a pipeline file: what its remote sources resolved to, so that a teammate gets the same bytes.
//!
//! A text of blocks in the order of the sources, a file a line, so that two people's additions merge by
//! themselves:
//!
//! ```text
//! # Written by qpipe: what the remote sources of the pipeline resolved to. Commit this file.
//! version 1
//!
//! source hf://org/name@main
//! revision 0123456789abcdef0123456789abcdef01234567
//! file 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 612 config.json
//! ```
//!
//! The digest is the file's blake3, then come its bytes and its path. A source of something else than such sources usually hold
//! is named with it (`source adapter hf://org/name`); of a file from the web the revision is the digest that is asked for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_cache::replace::{Replacement, sweep};
use qpipe_cache::{Entry, Tree};

use super::FetchError;

const VERSION: u32 = 1;
const COMMENT: &str =
    "# Written by qpipe: what the remote sources of the pipeline resolved to. Commit this file.";

/// What one source resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// The commit, where the source has commits; of a file from the web the digest that the pipeline asks for.
    pub revision: Option<String>,
    tree: Tree,
}

impl Pin {
    /// Pins `tree` at `revision`.
    pub fn new(revision: Option<String>, tree: &Tree) -> Self {
        Self { revision, tree: tree.clone() }
    }

    /// The files with their digests and sizes.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// The content of a lock file: pins by source, as the pipeline names it (with its revision).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    pins: BTreeMap<String, Pin>,
}

impl Lock {
    /// `FILE.lock` beside the pipeline file `FILE`.
    pub fn path_of(pipeline: &Path) -> PathBuf {
        let mut name = pipeline.as_os_str().to_owned();
        name.push(".lock");
        name.into()
    }

    /// Reads the file at `path`; a missing one is an empty lock.
    ///
    /// # Errors
    /// [`FetchError::BadLock`] with the line, [`FetchError::LockVersion`], I/O errors.
    pub fn load(path: &Path) -> Result<Self, FetchError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// What `source` is pinned to.
    pub fn get(&self, source: &str) -> Option<&Pin> {
        self.pins.get(source)
    }

    /// Pins `source`. Says whether that changed anything.
    pub fn set(&mut self, source: &str, pin: Pin) -> bool {
        match self.pins.entry(source.to_owned()) {
            MapEntry::Occupied(entry) if *entry.get() == pin => false,
            MapEntry::Occupied(mut entry) => {
                entry.insert(pin);
                true
            }
            MapEntry::Vacant(entry) => {
                entry.insert(pin);
                true
            }
        }
    }

    /// Takes over what the file at `path` pins by now: another process may have written it. The file wins.
    ///
    /// # Errors
    /// See [`Self::load`].
    pub fn merge_from(&mut self, path: &Path) -> Result<(), FetchError> {
        self.pins.extend(Self::load(path)?.pins);
        Ok(())
    }

    /// Writes the file at `path`, whole or not at all.
    ///
    /// # Errors
    /// I/O errors with the path.
    pub fn save(&self, path: &Path) -> Result<(), FetchError> {
        if let Some(folder) = path.parent() {
            sweep(folder);
        }
        Replacement::new(path.to_owned(), &mut self.to_text().as_bytes())?.sync()?.put()?;
        Ok(())
    }

    fn to_text(&self) -> String {
        let mut text = format!("{COMMENT}\nversion {VERSION}\n");
        for (source, pin) in &self.pins {
            text.push_str(&format!("\nsource {source}\n"));
            if let Some(revision) = &pin.revision {
                text.push_str(&format!("revision {revision}\n"));
            }
            for (path, entry) in &pin.tree.files {
                text.push_str(&format!("file {} {} {path}\n", entry.digest, entry.size));
            }
        }
        text
    }

    fn parse(text: &str, path: &Path) -> Result<Self, FetchError> {
        let mut lock = Self::default();
        let mut version = None;
        let mut current: Option<&mut Pin> = None;
        for (index, line) in text.lines().enumerate() {
            let bad =
                |message: String| FetchError::BadLock { path: path.to_owned(), line: index + 1, message };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            if version.is_none() && word != "version" {
                return Err(bad("the file does not begin with `version`".to_owned()));
            }
            match (word, current.as_deref_mut()) {
                ("version", _) => {
                    if rest != VERSION.to_string() {
                        let (path, version) = (path.to_owned(), rest.to_owned());
                        return Err(FetchError::LockVersion { path, version, understood: VERSION });
                    }
                    version = Some(VERSION);
                }
                ("source", _) => match lock.pins.entry(rest.to_owned()) {
                    MapEntry::Occupied(_) => return Err(bad(format!("`{rest}` stands there twice"))),
                    MapEntry::Vacant(entry) => current = Some(entry.insert(Pin::default())),
                },
                ("revision", Some(pin)) if pin.revision.is_none() => pin.revision = Some(rest.to_owned()),
                ("file", Some(pin)) => {
                    let (file, entry) = parse_file(rest)
                        .ok_or_else(|| bad("not of the form `file DIGEST SIZE PATH`".to_owned()))?;
                    if pin.tree.files.insert(file.to_owned(), entry).is_some() {
                        return Err(bad(format!("the file `{file}` stands there twice")));
                    }
                }
                _ => return Err(bad(format!("unexpected `{word}`"))),
            }
        }
        Ok(lock)
    }
}

/// `DIGEST SIZE PATH`. The path may hold spaces, and is empty for an artifact that is one file.
fn parse_file(text: &str) -> Option<(&str, Entry)> {
    let (digest, rest) = text.split_once(' ')?;
    let (size, path) = rest.split_once(' ')?;
    Some((path, Entry { digest: digest.parse().ok()?, size: size.parse().ok()? }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use qpipe_cache::Digest;

    fn pin(revision: Option<&str>, files: &[(&str, &[u8])]) -> Pin {
        let entry = |bytes: &[u8]| Entry { digest: Digest::of(bytes), size: bytes.len() as u64 };
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), entry(bytes))).collect();
        Pin::new(revision.map(str::to_owned), &Tree { files })
    }

    fn example() -> Lock {
        let mut lock = Lock::default();
        lock.set("https://example.org/b.jsonl", pin(None, &[("b.jsonl", b"b")]));
        lock.set("hf://org/name@main", pin(Some("0123"), &[("config.json", b"{}"), ("a b.jsonl", b"x")]));
        lock
    }

    #[test]
    fn text_round_trips_in_sorted_blocks() {
        let text = example().to_text();
        assert_eq!(Lock::parse(&text, Path::new("x.lock")).unwrap(), example());
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("source")).collect();
        assert_eq!(heads, ["source hf://org/name@main", "source https://example.org/b.jsonl"]);
    }

    #[test]
    fn saved_file_is_loaded_and_a_missing_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = Lock::path_of(&folder.path().join("study.yaml"));
        assert!(path.ends_with("study.yaml.lock"));
        assert_eq!(Lock::load(&path).unwrap(), Lock::default());
        example().save(&path).unwrap();
        assert_eq!(Lock::load(&path).unwrap(), example());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn merging_lets_the_file_win() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        example().save(&path).unwrap();
        let mut lock = Lock::default();
        lock.set("hf://org/name@main", pin(Some("old"), &[]));
        lock.set("hf://org/other@main", pin(Some("own"), &[]));
        lock.merge_from(&path).unwrap();
        assert_eq!(lock.get("hf://org/name@main").unwrap().revision.as_deref(), Some("0123"));
        assert_eq!(lock.get("hf://org/other@main").unwrap().revision.as_deref(), Some("own"));
    }

    #[test]
    fn setting_the_same_again_changes_nothing() {
        let mut lock = example();
        let same = lock.get("hf://org/name@main").unwrap().clone();
        assert!(!lock.set("hf://org/name@main", same));
        assert!(lock.set("hf://org/name@main", Pin::default()));
    }

    #[test]
    fn mistakes_are_shown_with_their_line() {
        for (text, expected) in [
            ("source x\n", "x.lock:1: the file does not begin with `version`"),
            ("version 1\n\nfile 00 1 a\n", "x.lock:3: unexpected `file`"),
            ("version 1\nsource x\nfile 00 1 a\n", "x.lock:3: not of the form `file DIGEST SIZE PATH`"),
            ("version 1\nsource x\nsource x\n", "x.lock:3: `x` stands there twice"),
            ("version 1\nsource x\n<<<<<<< HEAD\n", "x.lock:3: unexpected `<<<<<<<`"),
            ("version 2\n", "x.lock: lock file version 2 is not understood, only 1"),
        ] {
            assert_eq!(Lock::parse(text, Path::new("x.lock")).unwrap_err().to_string(), expected);
        }
    }
}
