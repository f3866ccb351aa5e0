//! Actions to try the store with.

use std::collections::BTreeMap;

use fs_err as fs;
use qpipe_cache::{Claim, Digest, Lookup, Manifest, Meta, Record, Store};
use serde_json::json;

/// A folder with room for a store and for things beside it.
pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.root()).unwrap()
    }
}

/// The manifest of action `number`.
pub(crate) fn manifest(number: u64) -> Manifest {
    Manifest {
        schema: 1,
        kind: "quantize".to_owned(),
        version: 1,
        params: json!({"scheme": "W8A8", "number": number}),
        inputs: BTreeMap::from([("model".to_owned(), json!(Digest::of(b"model")))]),
        runtime: BTreeMap::new(),
    }
}

pub(crate) fn meta() -> Meta {
    Meta {
        node: "w8".to_owned(),
        pipeline: "test".to_owned(),
        run: "1".to_owned(),
        finished_unix: 1.0,
        seconds: 2.0,
        host: "box".to_owned(),
        facts: BTreeMap::new(),
    }
}

/// The claim on `manifest`, which must be a miss.
pub(crate) fn claim(store: &Store, manifest: &Manifest) -> Claim {
    match store.lookup(&manifest.key(), &manifest.kind, &mut |_| {}).unwrap() {
        Lookup::Miss(claim) => claim,
        Lookup::Hit(record) => panic!("a hit: {record:?}"),
    }
}

/// Writes `files` to the claim's output and commits.
pub(crate) fn commit_files(claim: Claim, manifest: Manifest, files: &[(&str, &[u8])]) -> Record {
    for (name, content) in files {
        let path = claim.staging().join("out").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    claim.commit(manifest, meta()).unwrap()
}

/// Does action `number`, whose output is `files`.
pub(crate) fn done(store: &Store, number: u64, files: &[(&str, &[u8])]) -> Record {
    let manifest = manifest(number);
    commit_files(claim(store, &manifest), manifest, files)
}
