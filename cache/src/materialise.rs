//! Makes a stored artifact look like a folder again.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use fs_err as fs;

use crate::StoreError;
use crate::ingest::{copy_content, is_present};
use crate::layout::named;
use crate::replace::temporary_in;
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

    /// Copies one file of an artifact to `dest`, writable, sharing blocks where the file system can. `dest`
    /// holds what it held before or the whole file, at every moment.
    ///
    /// # Errors
    /// When the blob is missing or `dest` cannot be written.
    pub fn copy_out(&self, entry: &Entry, dest: &Path) -> Result<(), StoreError> {
        let blob = self.present_blob(entry)?;
        let folder = match dest.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(StoreError::writing)?;
        copy_atomically(&blob, folder, dest).map_err(StoreError::writing)
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

fn copy_atomically(blob: &Path, folder: &Path, dest: &Path) -> io::Result<()> {
    let source = fs::File::open(blob)?;
    let temporary = temporary_in(folder)?;
    let target = fs::File::from_parts(temporary.as_file().try_clone()?, temporary.path());
    copy_content(&source, &target)?;
    temporary.persist(dest).map_err(|error| named(error.error, "rename to", dest))?;
    Ok(())
}
