//! Reads everything again and finds what does not match its name.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err as fs;
use rayon::prelude::*;

use crate::records::list;
use crate::store::Store;
use crate::{Digest, Record, StoreError};

/// What [`Store::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blobs read.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Records read.
    pub records: u64,
    /// Blobs whose content is not what their name says.
    pub corrupt: Vec<CorruptBlob>,
    /// Records that are no hits: what they stand for is computed again by the next run that needs it.
    pub records_broken: Vec<BrokenRecord>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.corrupt.is_empty() && self.records_broken.is_empty()
    }
}

/// A blob that does not have the content that its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptBlob {
    /// What it should have been.
    pub digest: Digest,
    /// What it is.
    pub actual: Digest,
    /// Where it was moved out of the way; `None` if the store is read-only.
    pub moved_to: Option<PathBuf>,
}

/// A record that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRecord {
    /// Its file.
    pub path: PathBuf,
    /// The node that made it, where that can still be read.
    pub node: Option<String>,
    /// What is wrong.
    pub fault: RecordFault,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Not what was written, or under another name than it was written.
    #[error("the record is damaged")]
    Damaged,
    /// A blob of its output is absent, corrupt, or has another size.
    #[error("the blob {0} is missing or corrupt")]
    MissingBlob(Digest),
    /// An input of it had a corrupt blob, and nobody knows since when.
    #[error("it may have been made from the corrupt content of {0}")]
    Tainted(Digest),
}

impl Store {
    /// Hashes every blob on all cores and checks every record. Corrupt blobs are moved to `cas/corrupt/`, so
    /// that the next run computes them again, and records of what was made from them are removed. `on_progress` hears bytes done and bytes in all.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn verify(&self, on_progress: &(dyn Fn(u64, u64) + Sync)) -> Result<VerifyReport, StoreError> {
        let blobs = self.blobs()?;
        let total: u64 = blobs.iter().map(|blob| blob.size).sum();
        let done = AtomicU64::new(0);
        let check = |blob: &Blob| {
            let actual = match Digest::of_file(&blob.path) {
                Ok(actual) => actual,
                // Collected or replaced meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(StoreError::from(error)),
            };
            on_progress(done.fetch_add(blob.size, Ordering::Relaxed) + blob.size, total);
            Ok((actual != blob.digest).then_some(actual))
        };
        let mismatches: Vec<(&Blob, Digest)> = blobs
            .par_iter()
            .filter_map(|blob| check(blob).map(|actual| Some((blob, actual?))).transpose())
            .collect::<Result<_, StoreError>>()?;
        let corrupt: Vec<CorruptBlob> = mismatches
            .into_iter()
            .map(|(blob, actual)| CorruptBlob { digest: blob.digest, actual, moved_to: self.set_aside(blob) })
            .collect();
        let mut report =
            VerifyReport { blobs: blobs.len() as u64, bytes: total, corrupt, ..VerifyReport::default() };
        self.check_records(&mut report)?;
        Ok(report)
    }

    /// Every file in a shard of `cas/` whose name is a digest, sorted.
    fn blobs(&self) -> Result<Vec<Blob>, StoreError> {
        let mut blobs = Vec::new();
        for shard in list(&self.layout().cas())? {
            if shard.path() == self.layout().corrupt() {
                continue;
            }
            for entry in list(&shard.path())? {
                if let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                    && let Ok(metadata) = entry.metadata()
                {
                    blobs.push(Blob { digest, path: entry.path(), size: metadata.len() });
                }
            }
        }
        blobs.sort_unstable_by_key(|blob| blob.digest);
        Ok(blobs)
    }

    fn set_aside(&self, blob: &Blob) -> Option<PathBuf> {
        let folder = self.layout().corrupt();
        let place = folder.join(blob.digest.to_string());
        match fs::create_dir_all(&folder).and_then(|()| fs::rename(&blob.path, &place)) {
            Ok(()) => Some(place),
            Err(error) => {
                tracing::debug!(%error, "a corrupt blob stays where it is");
                None
            }
        }
    }

    fn check_records(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        // Digests of artifacts with a corrupt blob, and of what was made from them.
        let mut tainted = HashSet::new();
        let mut sound = Vec::new();
        for kind in self.kinds()? {
            let mut paths = self.record_paths(&kind)?;
            paths.sort_unstable();
            for path in paths {
                report.records += 1;
                let record = Self::read_record(&path)?;
                let node = record.as_ref().map(|record| record.meta.node.clone());
                let fault = match &record {
                    Some(record) if record.manifest.key() != record.key => Some(RecordFault::Damaged),
                    Some(record) if self.layout().record(&kind, &record.key) != path => {
                        Some(RecordFault::Damaged)
                    }
                    Some(record) => {
                        let outputs = record.output.files.values().map(|entry| entry.digest);
                        let corrupt =
                            |digest: &Digest| report.corrupt.iter().any(|blob| blob.digest == *digest);
                        let is_corrupt = outputs.clone().any(|digest| corrupt(&digest));
                        if is_corrupt {
                            tainted.insert(record.output.digest());
                        }
                        let missing = self
                            .lacks(&record.output, record.location)
                            .or_else(|| outputs.into_iter().find(corrupt));
                        missing.map(RecordFault::MissingBlob)
                    }
                    None => Some(RecordFault::Damaged),
                };
                match (fault, record) {
                    (Some(fault), _) => report.records_broken.push(BrokenRecord { path, node, fault }),
                    (None, Some(record)) => sound.push((path, record)),
                    (None, None) => {}
                }
            }
        }
        self.remove_tainted(tainted, sound, report);
        Ok(())
    }

    /// Removes the records, of those that are `sound` by themselves, whose inputs are among the `tainted`, and those made
    /// from what these stand for.
    fn remove_tainted(
        &self,
        mut tainted: HashSet<Digest>,
        mut sound: Vec<(PathBuf, Record)>,
        report: &mut VerifyReport,
    ) {
        loop {
            let before = sound.len();
            let mut rest = Vec::with_capacity(before);
            for (path, record) in sound {
                let source =
                    record.manifest.input_digests().into_iter().find(|digest| tainted.contains(digest));
                let Some(source) = source else {
                    rest.push((path, record));
                    continue;
                };
                tainted.insert(record.output.digest());
                if let Err(error) = fs::remove_file(&path) {
                    tracing::debug!(%error, "a tainted record stays where it is");
                }
                let node = Some(record.meta.node);
                report.records_broken.push(BrokenRecord { path, node, fault: RecordFault::Tainted(source) });
            }
            if rest.len() == before {
                return;
            }
            sound = rest;
        }
    }
}

struct Blob {
    digest: Digest,
    path: PathBuf,
    size: u64,
}
