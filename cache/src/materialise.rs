//! Makes a stored artifact look like a folder again.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use fs_err as fs;

use crate::StoreError;
use crate::ingest::is_present;
use crate::layout::named;
use crate::store::Store;
use crate::tree::{Entry, Tree};

impl Store {
    /// Lays out the files of `tree` below `dest` as symbolic links to the read-only blobs: what a node reads
    /// as its input. `dest` is made; links that are there already are kept or corrected. An artifact that is
    /// one file and no folder becomes a link at `dest` itself.
    ///
    /// # Errors
    /// When a blob is missing, a path leads outside of `dest`, or `dest` cannot be written.
    pub fn materialise(&self, tree: &Tree, dest: &Path) -> Result<(), StoreError> {
        tree.check_paths()?;
        for (path, entry) in &tree.files {
            let link = if path.is_empty() { dest.to_owned() } else { dest.join(path) };
            let blob = self.present_blob(entry)?;
            if let Some(folder) = link.parent() {
                fs::create_dir_all(folder).map_err(StoreError::writing)?;
            }
            make_link(&blob, &link)?;
        }
        Ok(())
    }

    fn present_blob(&self, entry: &Entry) -> Result<std::path::PathBuf, StoreError> {
        let blob = self.blob_path(&entry.digest);
        if is_present(&blob, entry.size) {
            Ok(blob)
        } else {
            Err(StoreError::MissingBlob { digest: entry.digest })
        }
    }
}

fn make_link(blob: &Path, link: &Path) -> Result<(), StoreError> {
    let make = || symlink(blob, link).map_err(|error| named(error, "link", link));
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::read_link(link).is_ok_and(|target| target == blob) {
                return Ok(());
            }
            fs::remove_file(link).and_then(|()| make()).map_err(StoreError::writing)
        }
        result => result.map_err(StoreError::writing),
    }
}
