//! Lists the files below a folder, links followed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::StoreError;

/// A regular file, possibly reached through links.
#[derive(Debug)]
pub(crate) struct Found {
    /// Path relative to the walk's root, with `/` between the parts; empty if the root is a file.
    pub(crate) relative: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Of the file itself, not of a link to it.
    pub(crate) metadata: Metadata,
}

/// All files below `root` (or `root` itself, if it is a file) whose relative path passes `filter`, sorted.
///
/// Links to files and to folders are followed: a Hugging Face cache's snapshot consists of them. Links that
/// the filter leaves out may be broken.
///
/// # Errors
/// Broken links, links to a folder above, names that are not UTF-8, and things that are no files, each
/// named; and failures to read a folder.
pub(crate) fn walk(root: &Path, filter: &dyn Fn(&str) -> bool) -> Result<Vec<Found>, StoreError> {
    let metadata = resolve(root)?;
    let mut walk = Walk { filter, found: Vec::new(), above: Vec::new() };
    if metadata.is_dir() {
        walk.folder(root, "", &metadata)?;
    } else {
        walk.file(String::new(), root.to_owned(), metadata)?;
    }
    walk.found.sort_unstable_by(|a, b| a.relative.cmp(&b.relative));
    Ok(walk.found)
}

struct Walk<'a> {
    filter: &'a dyn Fn(&str) -> bool,
    found: Vec<Found>,
    /// Device and inode of the folders from the root to the current one.
    above: Vec<(u64, u64)>,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, relative: &str, metadata: &Metadata) -> Result<(), StoreError> {
        let identity = (metadata.dev(), metadata.ino());
        if self.above.contains(&identity) {
            return Err(StoreError::LinkLoop { path: path.to_owned() });
        }
        self.above.push(identity);
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str() else { return Err(StoreError::NotUtf8 { path }) };
            let relative = if relative.is_empty() { name.to_owned() } else { format!("{relative}/{name}") };
            let file_type = entry.file_type()?;
            if !file_type.is_dir() && !(self.filter)(&relative) && !links_to_folder(&path, file_type) {
                continue;
            }
            let metadata = resolve(&path)?;
            if metadata.is_dir() {
                self.folder(&path, &relative, &metadata)?;
            } else {
                self.file(relative, path, metadata)?;
            }
        }
        self.above.pop();
        Ok(())
    }

    fn file(&mut self, relative: String, path: PathBuf, metadata: Metadata) -> Result<(), StoreError> {
        if !metadata.is_file() {
            return Err(StoreError::NotAFile { path });
        }
        self.found.push(Found { relative, path, metadata });
        Ok(())
    }
}

/// The filter speaks about files, so a link to a folder is entered whatever it says.
fn links_to_folder(path: &Path, file_type: std::fs::FileType) -> bool {
    file_type.is_symlink() && path.is_dir()
}

/// Metadata behind links; a link that leads nowhere is named as such.
fn resolve(path: &Path) -> Result<Metadata, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata),
        Err(error) => match std::fs::read_link(path) {
            Ok(target) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(StoreError::BrokenLink { path: path.to_owned(), target })
            }
            Ok(_) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                Err(StoreError::LinkLoop { path: path.to_owned() })
            }
            _ => Err(error.into()),
        },
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path) -> Vec<String> {
        walk(root, &|_| true).unwrap().into_iter().map(|found| found.relative).collect()
    }

    #[test]
    fn a_hub_snapshot_of_links_is_listed_by_its_own_names() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("blobs")).unwrap();
        fs::create_dir_all(root.join("snapshots/abc/sub")).unwrap();
        fs::write(root.join("blobs/1"), "config").unwrap();
        symlink("../../blobs/1", root.join("snapshots/abc/config.json")).unwrap();
        symlink("../../../blobs", root.join("snapshots/abc/sub/all")).unwrap();
        symlink("snapshots/abc", root.join("main")).unwrap();
        assert_eq!(names(&root.join("main")), ["config.json", "sub/all/1"]);
        let found = walk(&root.join("main"), &|_| true).unwrap();
        assert_eq!(found[0].metadata.len(), 6, "of the file, not of the link");
    }

    #[test]
    fn links_that_lead_nowhere_or_in_circles_are_named() {
        let folder = tempfile::tempdir().unwrap();
        symlink("gone", folder.path().join("link")).unwrap();
        let error = walk(folder.path(), &|_| true).unwrap_err();
        assert!(matches!(&error, StoreError::BrokenLink { .. }), "{error}");
        assert!(error.to_string().contains("link") && error.to_string().contains("gone"), "{error}");
        assert!(walk(folder.path(), &|name| name != "link").unwrap().is_empty(), "left out, not looked at");

        fs::remove_file(folder.path().join("link")).unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        symlink("..", folder.path().join("sub/up")).unwrap();
        assert!(matches!(walk(folder.path(), &|_| true), Err(StoreError::LinkLoop { .. })));
    }

    #[test]
    fn foreign_names_and_sockets_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = folder.path().join(OsStr::from_bytes(b"caf\xe9"));
        fs::write(&foreign, "x").unwrap();
        assert!(matches!(walk(folder.path(), &|_| true), Err(StoreError::NotUtf8 { .. })));
        fs::remove_file(&foreign).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(matches!(walk(folder.path(), &|_| true), Err(StoreError::NotAFile { .. })));
    }

    #[test]
    fn a_file_is_its_own_root() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rows.jsonl"), "{}").unwrap();
        assert_eq!(names(&folder.path().join("rows.jsonl")), [""]);
    }

    #[test]
    fn a_missing_root_is_named() {
        let error = walk(Path::new("/nowhere/model"), &|_| true).unwrap_err();
        assert!(error.to_string().contains("/nowhere/model"), "{error}");
    }
}
