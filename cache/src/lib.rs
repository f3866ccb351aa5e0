//! What qpipe remembers between runs: a content-addressed store, the records of finished actions, and the
//! claims of those at work. Knows no YAML and no tensors.
//!
//! An action's *key* is the digest of its [`Manifest`]; its *record* says which files came out; the files
//! are *blobs*, named by their digests. [`Store::lookup`] gives the record or a [`Claim`], and only
//! [`Claim::commit`] writes:
//!
//! ```text
//! Manifest ── key ──► Store::lookup ──► Hit(Record) ──► materialise
//!                          │
//!                          └──► Miss(Claim) ──► work in staging/ ──► commit: blobs, then record
//! ```
//!
//! # What enters the key
//!
//! | in the key | because | not in the key | because |
//! |---|---|---|---|
//! | schema of the manifest | its fields may change their meaning | the node's name, comments, order | they decide no byte |
//! | kind and the kind's version | another algorithm, or the same one mended | labels and titles, but in `report` | only the report shows them |
//! | parameters, defaults filled in | a default that changes is a change | whether a default was written out | it is the same parameter |
//! | content digest of each input | equal bytes give equal results, wherever they come from | path, time, upstream key, attempt | an upstream rerun with equal bytes stops there |
//! | device class, torch, dtype, seed, threads | for kinds whose floats depend on them | the device's index, other load | they decide no byte |
//! | the hardware | for `benchmark`, which measures it | | |
//!
//! # What holds at every moment
//!
//! * Blobs and records are complete and synced before they get their names, records last. So a process
//!   killed anywhere leaves no half result; a power cut in the middle of a run can at most forget results.
//! * A hit needs an undamaged record and all its blobs in the right size. Anything else is a miss. A record is
//!   taken for undamaged without being read if its file is the one that was read before (see [`Store::recall`]).
//! * A claim dies with its process. Nobody ever unlocks.
//! * Reading needs no permission to write.

pub mod canonical;
mod claim;
mod digest;
mod discover;
mod durability;
mod error;
mod failure;
mod identity;
mod ingest;
mod layout;
mod lock;
mod manifest;
mod materialise;
mod memo;
mod record;
mod records;
pub mod replace;
mod stat_cache;
mod stat_log;
mod store;
mod tree;
mod units;
mod verify;
mod walk;

pub use canonical::CanonicalError;
pub use claim::Claim;
pub use digest::{Digest, ParseDigestError};
pub use discover::{STORE_FOLDER, STORE_VARIABLE};
pub use error::StoreError;
pub use failure::KeptFailure;
pub use layout::FORMAT;
pub use manifest::Manifest;
pub use record::{Location, Meta, Output, Record};
pub use stat_cache::StatCache;
pub use store::{Attempt, Lookup, Store, host_name};
pub use tree::{Entry, Tree};
pub use verify::{BrokenRecord, CorruptBlob, RecordFault, VerifyReport};
