//! Records on the disk: found, read, and held to their blobs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::identity::now;
use crate::ingest::is_present;
use crate::layout::{Layout, named};
use crate::memo::Memo;
use crate::record::{Location, Output, Record};
use crate::store::Store;
use crate::{Digest, StoreError, Tree};

/// Bytes that hold nearly every record.
const RECORD_BUFFER: usize = 4 << 10;

impl Store {
    /// The record of `key`, an action of kind `kind`, if its output is complete. Takes no lock and needs no permission to
    /// write.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn peek(&self, key: &Digest, kind: &str) -> Result<Option<Record>, StoreError> {
        let Some(record) = Self::read_record(&self.layout().record(kind, key))? else { return Ok(None) };
        let complete = record.key == *key && self.lacks(&record.output, record.location).is_none();
        Ok(complete.then_some(record))
    }

    /// What came out of `key`, an action of kind `kind`, if it is complete: [`Store::peek`] for those who
    /// ask about thousands and need neither the manifest nor the facts. See [`Store::recall`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn peek_output(&self, key: &Digest, kind: &str) -> Result<Option<Output>, StoreError> {
        let output = match self.memo() {
            Some(memo) => self.recall_or_read(memo, key, kind)?,
            None => read_with(&self.layout().record(kind, key), Output::decode)?,
        };
        let is_complete =
            |output: &Output| output.key == *key && self.lacks(&output.tree, output.location).is_none();
        Ok(output.filter(is_complete))
    }

    /// Whether there is a record of `key`, an action of kind `kind`, be its output complete or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_recorded(&self, key: &Digest, kind: &str) -> Result<bool, StoreError> {
        let record = read_with(&self.layout().record(kind, key), Output::decode)?;
        Ok(record.is_some_and(|record| record.key == *key))
    }

    /// The newest records of a kind, by the time of their file, newest first; complete or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn records_of(&self, kind: &str, limit: usize) -> Result<Vec<Record>, StoreError> {
        let mut dated = Vec::new();
        for path in self.record_paths(kind)? {
            // A record that vanishes meanwhile is no record.
            if let Ok(modified) = std::fs::metadata(&path).and_then(|metadata| metadata.modified()) {
                dated.push((modified, path));
            }
        }
        dated.sort_unstable_by(|a, b| b.cmp(a));
        let mut records = Vec::new();
        for (_, path) in dated {
            if records.len() == limit {
                break;
            }
            records.extend(Self::read_record(&path)?);
        }
        Ok(records)
    }

    /// The first blob of a stored output that is absent or has another size.
    pub(crate) fn lacks(&self, output: &Tree, location: Location) -> Option<Digest> {
        match location {
            Location::External => None,
            Location::Stored => {
                let mut entries = output.files.values();
                let missing = entries.find(|entry| !is_present(&self.blob_path(&entry.digest), entry.size));
                missing.map(|entry| entry.digest)
            }
        }
    }

    /// The kinds that have records, sorted.
    pub(crate) fn kinds(&self) -> Result<Vec<String>, StoreError> {
        let mut kinds: Vec<String> = list(&self.layout().actions())?
            .into_iter()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        kinds.sort_unstable();
        Ok(kinds)
    }

    /// The record files of a kind, in no order.
    pub(crate) fn record_paths(&self, kind: &str) -> Result<Vec<PathBuf>, StoreError> {
        let mut paths = Vec::new();
        for shard in list(&self.layout().actions().join(kind))? {
            paths.extend(list(&shard.path())?.into_iter().map(|entry| entry.path()));
        }
        Ok(paths)
    }

    /// A record file's content; `None` where there is none, or where it is damaged.
    pub(crate) fn read_record(path: &Path) -> Result<Option<Record>, StoreError> {
        read_with(path, Record::decode)
    }

    /// What a record says, if it is whole; from memory where its file is what it was.
    fn recall_or_read(&self, memo: &Memo, key: &Digest, kind: &str) -> Result<Option<Output>, StoreError> {
        let at = now();
        let identity = memo.identity(&Layout::record_name(kind, key));
        if let Some(output) = identity.and_then(|identity| memo.recall(key, &identity)) {
            return Ok(Some(output));
        }
        let output = read_with(&self.layout().record(kind, key), Output::decode)?;
        if let (Some(output), Some(identity)) = (&output, identity)
            && output.key == *key
            && identity.is_settled(at)
        {
            memo.note(&identity, output);
        }
        Ok(output)
    }
}

/// What `decode` makes of a file; `None` where there is none, or where it is damaged.
fn read_with<T>(path: &Path, decode: fn(&[u8]) -> Option<T>) -> Result<Option<T>, StoreError> {
    let decoded = read_small(path, |bytes| {
        let decoded = decode(bytes);
        if decoded.is_none() {
            tracing::debug!(path = %path.display(), "a damaged record counts as absent");
        }
        decoded
    });
    match decoded {
        Err(error) if is_absence(&error) => Ok(None),
        decoded => decoded.map_err(|error| named(error, "read", path).into()),
    }
}

/// Gives `take` a file's bytes, in as few system calls as it can be done: nearly all files that are read here
/// are records. A regular file that fills less than the buffer was read to its end.
fn read_small<T>(path: &Path, take: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let mut file = File::open(path)?;
    let mut buffer = [0; RECORD_BUFFER];
    let length = file.read(&mut buffer)?;
    if length < RECORD_BUFFER {
        return Ok(take(&buffer[..length]));
    }
    let mut bytes = buffer.to_vec();
    file.read_to_end(&mut bytes)?;
    Ok(take(&bytes))
}

/// The entries of a folder; none where there is no such folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.collect::<Result<_, _>>()?),
        Err(error) if is_absence(&error) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
