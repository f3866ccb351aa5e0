//! The listing of an artifact: relative paths, digests, sizes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, StoreError};

/// Distinguishes listings from every other hashed text; the number is the version of the encoding.
const DOMAIN: &[u8] = b"qpipe tree 1\0";

/// One file of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// The files of an artifact by path relative to its root, with `/` between the parts. Empty folders,
/// modes and times are no part of it.
///
/// An artifact that is one file and no folder has one entry with the empty path: its name is in no key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The files.
    pub files: BTreeMap<String, Entry>,
}

impl Tree {
    /// The artifact's content digest: what enters the key of a node that takes it as an input.
    ///
    /// blake3 of the domain `qpipe tree 1\0`, then for each file in the order of the paths: length of the
    /// path in bytes (u64, little endian), path, digest (32 bytes), size (u64, little endian).
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DOMAIN);
        for (path, entry) in &self.files {
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path.as_bytes());
            hasher.update(&entry.digest.0);
            hasher.update(&entry.size.to_le_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// Bytes of all files.
    pub fn total_size(&self) -> u64 {
        self.files.values().map(|entry| entry.size).sum()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The entry of an artifact that is one file and no folder.
    pub fn single_file(&self) -> Option<&Entry> {
        if self.files.len() == 1 { self.files.get("") } else { None }
    }

    /// Refuses paths that would leave the artifact's folder: a listing may come from elsewhere.
    pub(crate) fn check_paths(&self) -> Result<(), StoreError> {
        if self.single_file().is_some() {
            return Ok(());
        }
        for path in self.files.keys() {
            let leaves = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
            if path.split('/').any(leaves) {
                return Err(StoreError::BadPath { path: path.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &[u8])]) -> Tree {
        let entry = |bytes: &[u8]| Entry { digest: Digest::of(bytes), size: bytes.len() as u64 };
        Tree { files: files.iter().map(|(path, bytes)| ((*path).to_owned(), entry(bytes))).collect() }
    }

    #[test]
    fn the_digest_is_pinned() {
        let listing = tree(&[("config.json", b"{}"), ("sub/model.safetensors", b"weights")]);
        assert_eq!(
            listing.digest().to_string(),
            "6b04f4d2541c8eacbc48060b14b02c5844c8bbe638e6ea2139d8697fff7c28fa"
        );
        assert_eq!(listing.total_size(), 9);
    }

    #[test]
    fn names_and_contents_count() {
        let original = tree(&[("a", b"1"), ("b", b"2")]);
        for other in [
            tree(&[("a", b"2"), ("b", b"1")]),
            tree(&[("a", b"1"), ("c", b"2")]),
            tree(&[("a", b"1")]),
            tree(&[("a/b", b"1"), ("b", b"2")]),
            tree(&[]),
        ] {
            assert_ne!(original.digest(), other.digest());
        }
    }

    #[test]
    fn paths_that_lead_outside_are_refused() {
        for path in ["../x", "/etc/passwd", "a//b", "a/./b", "a/..", "..", "x/"] {
            assert!(matches!(tree(&[(path, b"1")]).check_paths(), Err(StoreError::BadPath { .. })), "{path}");
        }
        assert!(tree(&[("a/b.c/..d", b"1")]).check_paths().is_ok());
        assert!(tree(&[("", b"1")]).check_paths().is_ok(), "one file");
        assert!(tree(&[("", b"1"), ("a", b"2")]).check_paths().is_err(), "the empty path among others");
    }
}
