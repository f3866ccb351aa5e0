//! The right to do an action and to say that it is done.
//!
//! A claim is a lock file (see [`crate::lock`]) and a folder of its own, `staging/KEY/ATTEMPT/`:
//!
//! ```text
//! out/        the artifact-to-be; its files are renamed into the store by the commit
//! units/      finished parts, taken over from earlier attempts
//! units.log   their digests
//! ```
//!
//! Each attempt has another folder, because the worker of a killed run may live on for a moment and must
//! not write into the output of the next attempt.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err as fs;

use crate::failure;
use crate::ingest::{ingest, make_folder};
use crate::lock::KeyLock;
use crate::record::{Location, Meta, Record};
use crate::store::Store;
use crate::units::Units;
use crate::{Digest, Manifest, StoreError, Tree};

const OUT: &str = "out";
const RECORD: &str = "record.json";

/// The exclusive right to do the action `key`. Dropped without a commit, it leaves the finished units for
/// the next attempt and nothing else.
#[derive(Debug)]
pub struct Claim {
    store: Store,
    key: Digest,
    staging: PathBuf,
    units: Vec<String>,
    replace: bool,
    _lock: KeyLock,
}

impl Claim {
    /// Prepares the staging folder; the caller holds `lock`.
    pub(crate) fn new(store: Store, key: Digest, replace: bool, lock: KeyLock) -> Result<Self, StoreError> {
        let of_key = store.layout().staging(&key);
        fs::create_dir_all(&of_key).map_err(StoreError::writing)?;
        let earlier: Vec<PathBuf> =
            fs::read_dir(&of_key)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let staging = of_key.join(format!("{}-{:x}", std::process::id(), since.as_nanos()));
        let units = Units::of(&staging);
        fs::create_dir(&staging).map_err(StoreError::writing)?;
        fs::create_dir(staging.join(OUT)).map_err(StoreError::writing)?;
        fs::create_dir(units.folder()).map_err(StoreError::writing)?;
        let mut names = Vec::new();
        for attempt in earlier {
            names.extend(units.take_over(&Units::of(&attempt))?);
            remove(&attempt);
        }
        names.sort();
        tracing::debug!(key = %key.short(), units = names.len(), "claimed");
        Ok(Self { store, key, staging, units: names, replace, _lock: lock })
    }

    /// The action's key.
    pub fn key(&self) -> &Digest {
        &self.key
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The folder to work in: `out/` (empty) and `units/` are there. An absolute path.
    pub fn staging(&self) -> &Path {
        &self.staging
    }

    /// Names of the units that were taken over from earlier attempts, verified, sorted.
    pub fn units(&self) -> &[String] {
        &self.units
    }

    /// Remembers that the unit `name` is complete in `units/`, durably. A unit of the same name that was
    /// recorded before is replaced.
    ///
    /// # Errors
    /// When the log cannot be written, or `name` is no plain file name.
    pub fn record_unit(&self, name: &str) -> Result<(), StoreError> {
        Units::of(&self.staging).record(name)
    }

    /// Moves `out/` into the store and then publishes the record. On return everybody hits, and the contents
    /// are durable; [`Store::settle`] makes their names so.
    ///
    /// # Errors
    /// When `out/` is empty or holds something that is no file, when `manifest` is not what was claimed, or
    /// when the disk refuses. Then there is no record, and nothing that was in the store is lost.
    pub fn commit(self, manifest: Manifest, meta: Meta) -> Result<Record, StoreError> {
        self.check(&manifest)?;
        let tree = self.ingest()?;
        self.publish(manifest, tree, Location::Stored, meta)
    }

    /// [`Claim::commit`] of what must be `expected`: the key was made of it before the work was done.
    ///
    /// # Errors
    /// As [`Claim::commit`], and when something else came out. Then there is no record.
    pub fn commit_expected(
        self,
        manifest: Manifest,
        expected: &Tree,
        meta: Meta,
    ) -> Result<Record, StoreError> {
        self.check(&manifest)?;
        let tree = self.ingest()?;
        if tree != *expected {
            let (expected, found) = (expected.digest(), tree.digest());
            return Err(StoreError::OtherOutput { expected, found });
        }
        self.publish(manifest, tree, Location::Stored, meta)
    }

    /// Publishes a record of bytes that stay where the user has them, listed in `tree`.
    ///
    /// # Errors
    /// As [`Claim::commit`].
    pub fn commit_external(self, manifest: Manifest, tree: Tree, meta: Meta) -> Result<Record, StoreError> {
        self.check(&manifest)?;
        self.publish(manifest, tree, Location::External, meta)
    }

    fn ingest(&self) -> Result<Tree, StoreError> {
        let store = &self.store;
        let out = self.staging.join(OUT);
        ingest(store.layout(), store.group_sync(), &out, &self.staging, self.replace)
    }

    fn check(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let key = manifest.key();
        if key == self.key {
            Ok(())
        } else {
            Err(StoreError::ForeignManifest { manifest: key, claimed: self.key })
        }
    }

    /// The record's content is synced before it can be read.
    fn publish(
        self,
        manifest: Manifest,
        output: Tree,
        location: Location,
        meta: Meta,
    ) -> Result<Record, StoreError> {
        let (layout, sync) = (self.store.layout(), self.store.group_sync());
        let record = Record { key: self.key, manifest, output, location, meta };
        let written = self.staging.join(RECORD);
        fs::write(&written, record.encode()?).map_err(StoreError::writing)?;
        sync.sync(vec![written.clone()]).map_err(StoreError::writing)?;

        let path = layout.record(&record.manifest.kind, &self.key);
        let shard = path.parent().expect("a record lies in a shard");
        let of_kind = shard.parent().expect("a shard lies in its kind's folder");
        if make_folder(of_kind)? {
            sync.later([layout.actions()]);
        }
        if make_folder(shard)? {
            sync.later([of_kind.to_owned()]);
        }
        fs::rename(&written, &path).map_err(StoreError::writing)?;
        sync.later([shard.to_owned()]);
        failure::forget(&layout.failure(&self.key));
        remove(&layout.staging(&self.key));
        tracing::debug!(key = %self.key.short(), kind = %record.manifest.kind, "committed");
        Ok(record)
    }
}

impl Drop for Claim {
    /// Runs before the lock is released, so nobody else is at work in the staging folder.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.staging.join(OUT));
        // Plain removals from the inside out: each fails, as it should, where something is left.
        for folder in
            [self.staging.join("units"), self.staging.clone(), self.store.layout().staging(&self.key)]
        {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Removes a folder that nobody needs. What cannot be removed costs space and nothing else.
fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::debug!(%error, "left behind");
    }
}
