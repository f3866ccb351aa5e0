//! Moves a finished output folder into the store: hash, sync, rename. Blobs never change after that.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rayon::prelude::*;

use crate::durability::GroupSync;
use crate::layout::{Layout, named};
use crate::replace::temporary_in;
use crate::tree::{Entry, Tree};
use crate::walk::{Found, walk};
use crate::{Digest, StoreError};

/// Readable by all, writable by none: nobody edits a blob by mistake.
const READ_ONLY: u32 = 0o444;

/// Ingests the folder `out`. Files are renamed into the store where that is possible, `scratch` (on the
/// store's file system) takes the copies of those where it is not. With `replace`, blobs that are there
/// already are written again: they may be damaged.
pub(crate) fn ingest(
    layout: &Layout,
    sync: &GroupSync,
    out: &Path,
    scratch: &Path,
    replace: bool,
) -> Result<Tree, StoreError> {
    let found = if out.is_dir() { walk(out, &|_| true)? } else { Vec::new() };
    if found.is_empty() {
        return Err(StoreError::EmptyOutput { path: out.to_owned() });
    }
    let entries = hash_all(&found)?;
    let mut blobs: BTreeMap<Digest, &Found> = BTreeMap::new();
    for (file, entry) in found.iter().zip(&entries) {
        blobs.entry(entry.digest).or_insert(file);
    }
    let mut incoming = Vec::new();
    for (digest, file) in blobs {
        let blob = layout.blob(&digest);
        if replace || !is_present(&blob, file.metadata.len()) {
            let name = format!("blob-{}", incoming.len());
            incoming.push((movable(file, &scratch.join(name))?, blob));
        }
    }
    sync.sync(incoming.iter().map(|(from, _)| from.clone()).collect()).map_err(StoreError::writing)?;
    for (from, blob) in &incoming {
        let shard = blob.parent().expect("a blob lies in a shard");
        if make_folder(shard)? {
            sync.later([layout.cas()]);
        }
        place(from, blob)?;
        sync.later([shard.to_owned()]);
    }
    Ok(Tree { files: found.into_iter().map(|file| file.relative).zip(entries).collect() })
}

/// Whether a blob of this size is at `path`.
pub(crate) fn is_present(path: &Path, size: u64) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// Makes one folder if it is not there; whether it was made.
pub(crate) fn make_folder(path: &Path) -> Result<bool, StoreError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(StoreError::writing(error)),
    }
}

fn hash_all(found: &[Found]) -> Result<Vec<Entry>, StoreError> {
    let entry = |file: &Found| Ok(Entry { digest: Digest::of_file(&file.path)?, size: file.metadata.len() });
    match found {
        [one] => Ok(vec![entry(one)?]),
        many => many.par_iter().map(entry).collect(),
    }
}

/// A read-only file with the content of `file` that can be renamed into the store. That is the file itself,
/// unless somebody else knows it under another name: then a copy.
fn movable(file: &Found, copy: &Path) -> Result<PathBuf, StoreError> {
    let is_link = fs::symlink_metadata(&file.path)?.is_symlink();
    let path = if is_link || file.metadata.nlink() > 1 {
        duplicate(&file.path, copy).map_err(StoreError::writing)?;
        copy
    } else {
        &file.path
    };
    fs::set_permissions(path, std::fs::Permissions::from_mode(READ_ONLY)).map_err(StoreError::writing)?;
    Ok(path.to_owned())
}

/// Copies a file's content to a new file, sharing its blocks where the file system can.
pub(crate) fn duplicate(from: &Path, to: &Path) -> io::Result<()> {
    let source = fs::File::open(from)?;
    let target = fs::File::create(to)?;
    copy_content(&source, &target)
}

/// Copies between open files, sharing blocks where the file system can.
fn copy_content(mut source: &fs::File, mut target: &fs::File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(target.file(), source.file()).is_err() {
        io::copy(&mut source, &mut target)?;
    }
    Ok(())
}

/// Renames a synced file to its blob. A store whose `cas` is a mount of its own gets a copy.
fn place(from: &Path, blob: &Path) -> Result<(), StoreError> {
    match fs::rename(from, blob) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_across(from, blob).map_err(StoreError::writing)
        }
        Err(error) => Err(StoreError::writing(error)),
    }
}

fn copy_across(from: &Path, blob: &Path) -> io::Result<()> {
    let folder = blob.parent().expect("a blob lies in a shard");
    let temporary = temporary_in(folder)?;
    let target = fs::File::from_parts(temporary.as_file().try_clone()?, temporary.path());
    copy_content(&fs::File::open(from)?, &target)?;
    target.set_permissions(std::fs::Permissions::from_mode(READ_ONLY))?;
    target.sync_all()?;
    temporary.persist(blob).map_err(|error| named(error.error, "rename to", blob))?;
    Ok(())
}
