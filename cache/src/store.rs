//! The store: look up what is known, claim what is not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::claim::Claim;
use crate::durability::GroupSync;
use crate::failure;
use crate::layout::{Layout, is_plain_name, named};
use crate::lock::{self, KeyLock};
use crate::memo::Memo;
use crate::record::Record;
use crate::stat_cache::StatCache;
use crate::{Digest, StoreError};

/// A store's folder. Cheap to clone; clones share the stat cache and the queue of syncs.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    stat_cache: StatCache,
    group_sync: GroupSync,
    memo: OnceLock<Memo>,
    run: OnceLock<String>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.group_sync.settle() {
            tracing::debug!(%error, "a power cut may forget the newest results");
        }
        if let Some(Err(error)) = self.memo.get().map(Memo::save) {
            tracing::debug!(%error, "the memo was not written");
        }
    }
}

/// What [`Store::lookup`] found.
#[derive(Debug)]
pub enum Lookup {
    /// The action was done before, by whomever.
    Hit(Record),
    /// It was not, and the caller is the one to do it.
    Miss(Claim),
}

/// What [`Store::try_lookup`] found.
#[derive(Debug)]
pub enum Attempt {
    /// The action was done before.
    Hit(Record),
    /// It was not, and the caller is the one to do it.
    Miss(Claim),
    /// Somebody is at it: who, in words.
    Busy(String),
}

impl Store {
    /// Opens the store at `root`, making it if there is none. Where it cannot be made, it counts as empty
    /// until something must be written. Opening an existing store writes nothing.
    ///
    /// # Errors
    /// When the store has a newer format, or `root` is a file or a folder with other things in it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(|error| named(error, "resolve", root))?;
        let layout = Layout::new(root);
        if layout.read_format()?.is_none() || !layout.is_whole() {
            match layout.create() {
                Err(StoreError::NotWritable(error)) => tracing::debug!(%error, "no store was made"),
                result => result?,
            }
        }
        let stat_cache = StatCache::new(layout.stat_log());
        let shared = Shared {
            layout,
            stat_cache,
            group_sync: GroupSync::default(),
            memo: OnceLock::new(),
            run: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Names the run that claims are made for, in the messages that others see while they wait. The first
    /// name stays.
    pub fn set_run(&self, run: &str) {
        self.shared.run.get_or_init(|| run.to_owned());
    }

    /// Makes [`Store::peek_output`] cheap for those who ask about the same thousands of records each time:
    /// what they say is kept under `name` when the last clone is dropped. The first name stays.
    pub fn recall(&self, name: &str) {
        if let Some(file) = self.layout().memo(name).filter(|_| self.shared.memo.get().is_none()) {
            match Memo::load(file, &self.layout().actions()) {
                Ok(memo) => drop(self.shared.memo.set(memo)),
                Err(error) => tracing::debug!(%error, "there are no records yet"),
            }
        }
    }

    /// Makes all commits up to now survive a power cut (they survive the end of any process anyway): to be
    /// called at the end of a run. Dropping the last clone does the same without telling of errors.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.shared.group_sync.settle().map_err(StoreError::writing)
    }

    /// The store's folder, an absolute path.
    pub fn root(&self) -> &Path {
        self.layout().root()
    }

    /// Where each run keeps its events and its log, in a folder of its own.
    pub fn runs_dir(&self) -> PathBuf {
        self.layout().runs()
    }

    /// Digests of files outside of the store.
    pub fn stat_cache(&self) -> &StatCache {
        &self.shared.stat_cache
    }

    /// Where the blob `digest` is, if it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout().blob(digest)
    }

    /// The record of `key`, or the claim to make it. While another thread or process holds the claim, this
    /// says who through `on_wait` and waits, and then usually hits.
    ///
    /// # Errors
    /// When the store cannot be read, or on a miss cannot be written.
    pub fn lookup(
        &self,
        key: &Digest,
        kind: &str,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<Lookup, StoreError> {
        match self.try_lookup(key, kind)? {
            Attempt::Hit(record) => Ok(Lookup::Hit(record)),
            Attempt::Miss(claim) => Ok(Lookup::Miss(claim)),
            Attempt::Busy(holder) => {
                on_wait(&holder);
                let lock = KeyLock::acquire(&self.layout().lock(key)).map_err(StoreError::writing)?;
                // Whoever held the claim has published meanwhile, or has failed.
                match self.peek(key, kind)? {
                    Some(record) => Ok(Lookup::Hit(record)),
                    None => Ok(Lookup::Miss(self.claim(key, kind, false, lock)?)),
                }
            }
        }
    }

    /// [`Store::lookup`] that never waits.
    ///
    /// # Errors
    /// As [`Store::lookup`].
    pub fn try_lookup(&self, key: &Digest, kind: &str) -> Result<Attempt, StoreError> {
        if let Some(record) = self.peek(key, kind)? {
            return Ok(Attempt::Hit(record));
        }
        self.ensure_made()?;
        let path = self.layout().lock(key);
        let Some(lock) = KeyLock::try_acquire(&path).map_err(StoreError::writing)? else {
            return Ok(Attempt::Busy(lock::holder(&path)));
        };
        // It may have been published between the first look and the lock.
        match self.peek(key, kind)? {
            Some(record) => Ok(Attempt::Hit(record)),
            None => Ok(Attempt::Miss(self.claim(key, kind, false, lock)?)),
        }
    }

    /// The claim on `key` whether or not there is a record: the action is to be done again, and what comes
    /// out replaces record and blobs. A kept failure is forgotten. Never waits.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn try_claim_anew(&self, key: &Digest, kind: &str) -> Result<Attempt, StoreError> {
        self.ensure_made()?;
        let path = self.layout().lock(key);
        let Some(lock) = KeyLock::try_acquire(&path).map_err(StoreError::writing)? else {
            return Ok(Attempt::Busy(lock::holder(&path)));
        };
        failure::forget(&self.layout().failure(key));
        Ok(Attempt::Miss(self.claim(key, kind, true, lock)?))
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    pub(crate) fn memo(&self) -> Option<&Memo> {
        self.shared.memo.get()
    }

    pub(crate) fn group_sync(&self) -> &GroupSync {
        &self.shared.group_sync
    }

    fn claim(&self, key: &Digest, kind: &str, replace: bool, mut lock: KeyLock) -> Result<Claim, StoreError> {
        if !is_plain_name(kind) {
            return Err(StoreError::BadPath { path: kind.to_owned() });
        }
        let run = self.shared.run.get().map_or(String::new(), |run| format!(", run {run}"));
        let holder = format!("process {} on {}{run}", std::process::id(), host_name());
        lock.describe(&holder).map_err(StoreError::writing)?;
        Claim::new(self.clone(), *key, replace, lock)
    }

    /// Makes the store if opening could not; says why it still cannot be made.
    fn ensure_made(&self) -> Result<(), StoreError> {
        match self.layout().read_format()? {
            Some(_) => Ok(()),
            None => self.layout().create(),
        }
    }
}

/// This machine's name, as it stands in records and lock files.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
