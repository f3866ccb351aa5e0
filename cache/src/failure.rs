//! Failures that would come again with the same key: kept, so that the next run says so instead of finding out.
//!
//! A kept failure is one small file, `failures/KEY`, sealed like a record; a damaged one counts as absent. It goes
//! when the action succeeds, and when somebody insists on trying ([`Store::try_claim_anew`]).

use std::io;
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::claim::Claim;
use crate::ingest::make_folder;
use crate::layout::replace_file;
use crate::record::{seal, sound_body};
use crate::store::Store;
use crate::{Digest, StoreError};

/// Why an action cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFailure {
    /// What, where.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The run that found out.
    pub run: String,
    /// The program that failed: in another build the cause may be mended.
    pub program: Digest,
}

impl Store {
    /// Why the action `key` failed the last time it was tried, if that was kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn failure_of(&self, key: &Digest) -> Result<Option<KeptFailure>, StoreError> {
        match fs::read(self.layout().failure(key)) {
            Ok(bytes) => Ok(sound_body(&bytes).and_then(|body| serde_json::from_slice(body).ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Claim {
    /// Keeps `failure`, durably. The claim ends; its finished units stay for whoever tries again.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep_failure(self, failure: &KeptFailure) -> Result<(), StoreError> {
        let key = *self.key();
        let bytes = serde_json::to_vec(failure).map_err(|source| StoreError::Encode { key, source })?;
        let layout = self.store().layout();
        make_folder(&layout.failures())?;
        replace_file(&layout.failure(&key), &seal(bytes)).map_err(StoreError::writing)
    }
}

/// Forgets the failure at `path`, if there is one.
pub(crate) fn forget(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::debug!(%error, "a kept failure stays behind"),
    }
}
