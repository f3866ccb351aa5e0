//! Committing, hitting, and who may do an action.

use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fs_err as fs;
use qpipe_cache::{Attempt, Digest, Entry, KeptFailure, Location, Lookup, Store, StoreError, Tree};

use crate::artifacts::{Fixture, claim, commit_files, done, manifest, meta};
use crate::child;

#[test]
fn what_is_committed_is_hit_and_can_be_laid_out() {
    let fixture = Fixture::new();
    let store = fixture.store();
    assert!(store.peek(&manifest(0).key(), "quantize").unwrap().is_none());
    let record = done(
        &store,
        0,
        &[("config.json", b"{}"), ("sub/deep/weights", b"www"), ("empty", b""), ("copy", b"{}")],
    );
    assert_eq!(
        record.output.files.keys().collect::<Vec<_>>(),
        ["config.json", "copy", "empty", "sub/deep/weights"]
    );
    assert_eq!(record.output.files["empty"], Entry { digest: Digest::of(b""), size: 0 });

    let reopened = fixture.store();
    assert_eq!(reopened.peek(&record.key, "quantize").unwrap().unwrap(), record);
    let output = reopened.peek_output(&record.key, "quantize").unwrap().unwrap();
    assert_eq!((output.tree, output.location), (record.output.clone(), Location::Stored));
    assert!(reopened.peek_output(&record.key, "evaluate").unwrap().is_none());
    let Lookup::Hit(hit) = reopened.lookup(&record.key, "quantize", &mut |_| panic!("no wait")).unwrap()
    else {
        panic!("a miss");
    };
    assert_eq!(hit, record);
    assert_eq!(reopened.records_of("quantize", 9).unwrap(), std::slice::from_ref(&record));
    assert!(reopened.records_of("evaluate", 9).unwrap().is_empty());

    let dest = fixture.folder.path().join("inputs/model");
    for _ in 0..2 {
        reopened.materialise(&record.output, &dest).unwrap();
        assert_eq!(fs::read(dest.join("sub/deep/weights")).unwrap(), b"www");
    }
    let mode = fs::metadata(dest.join("config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444, "blobs are read-only");
    assert!(reopened.verify(&|_, _| {}).unwrap().is_sound());
}

#[test]
fn a_commit_leaves_neither_lock_nor_staging() {
    let fixture = Fixture::new();
    done(&fixture.store(), 0, &[("a", b"1")]);
    drop(claim(&fixture.store(), &manifest(1)));
    for folder in ["locks", "staging"] {
        let left: Vec<_> = fs::read_dir(fixture.root().join(folder)).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn an_empty_output_and_a_foreign_manifest_are_refused() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let empty = claim(&store, &manifest(0));
    fs::create_dir(empty.staging().join("out/folder")).unwrap();
    assert!(matches!(empty.commit(manifest(0), meta()), Err(StoreError::EmptyOutput { .. })));
    let foreign = claim(&store, &manifest(0));
    fs::write(foreign.staging().join("out/a"), "1").unwrap();
    assert!(matches!(foreign.commit(manifest(1), meta()), Err(StoreError::ForeignManifest { .. })));
    assert!(store.peek(&manifest(0).key(), "quantize").unwrap().is_none());
}

#[test]
fn linked_files_are_copied_and_their_other_names_left_alone() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let original = fixture.folder.path().join("tokenizer.json");
    fs::write(&original, "tokens").unwrap();
    let claim = claim(&store, &manifest(0));
    std::os::unix::fs::symlink(&original, claim.staging().join("out/soft")).unwrap();
    fs::hard_link(&original, claim.staging().join("out/hard")).unwrap();
    let record = commit_files(claim, manifest(0), &[]);
    assert_eq!(record.output.files["soft"], record.output.files["hard"]);
    fs::write(&original, "edited").unwrap();
    assert!(store.verify(&|_, _| {}).unwrap().is_sound());
}

#[test]
fn bytes_that_stay_elsewhere_are_only_listed() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let data = fixture.folder.path().join("rows.jsonl");
    fs::write(&data, "{}\n").unwrap();
    let tree = store.stat_cache().digest_tree(&data, &|_| true).unwrap();
    assert_eq!(tree.single_file().unwrap().digest, Digest::of(b"{}\n"), "the name does not matter");
    let record = claim(&store, &manifest(0)).commit_external(manifest(0), tree, meta()).unwrap();
    assert_eq!(record.location, Location::External);
    assert_eq!(store.peek(&record.key, "quantize").unwrap().unwrap(), record);
    assert!(!store.blob_path(&Digest::of(b"{}\n")).exists());
}

#[test]
fn a_forced_claim_replaces_the_record() {
    let fixture = Fixture::new();
    let store = fixture.store();
    done(&store, 0, &[("a", b"1")]);
    let Attempt::Miss(again) = store.try_claim_anew(&manifest(0).key(), "quantize").unwrap() else {
        panic!("nobody is at it");
    };
    assert!(matches!(store.try_claim_anew(&manifest(0).key(), "quantize").unwrap(), Attempt::Busy(_)));
    commit_files(again, manifest(0), &[("a", b"2")]);
    let record = store.peek(&manifest(0).key(), "quantize").unwrap().unwrap();
    assert_eq!(record.output.files["a"].digest, Digest::of(b"2"));
}

#[test]
fn a_kept_failure_stays_until_somebody_insists_or_succeeds() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let key = manifest(0).key();
    let failure = KeptFailure {
        message: "the loss is not finite at step 2".to_owned(),
        help: None,
        run: "20261122-1".to_owned(),
        program: Digest::of(b"worker"),
    };
    claim(&store, &manifest(0)).keep_failure(&failure).unwrap();
    assert_eq!(store.failure_of(&key).unwrap(), Some(failure.clone()));
    assert_eq!(store.failure_of(&manifest(1).key()).unwrap(), None);

    drop(store.try_claim_anew(&key, "quantize").unwrap());
    assert_eq!(store.failure_of(&key).unwrap(), None, "insisted");

    claim(&store, &manifest(0)).keep_failure(&failure).unwrap();
    let path = fixture.root().join("failures").join(key.to_string());
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(store.failure_of(&key).unwrap(), None, "damaged");

    claim(&store, &manifest(0)).keep_failure(&failure).unwrap();
    done(&store, 0, &[("a", b"1")]);
    assert_eq!(store.failure_of(&key).unwrap(), None, "succeeded");
    drop(Store::open(&fixture.root()).unwrap());
}

#[test]
fn a_listing_cannot_lead_outside() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let mut record = done(&store, 0, &[("a", b"1")]);
    let entry = record.output.files.remove("a").unwrap();
    let tree = Tree { files: [("../../escaped".to_owned(), entry)].into() };
    let dest = fixture.folder.path().join("inputs/model");
    assert!(matches!(store.materialise(&tree, &dest), Err(StoreError::BadPath { .. })));
}

#[test]
fn threads_wait_for_the_one_at_work_and_then_hit() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (executed, waited) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut on_wait = |holder: &str| {
                    assert!(holder.contains("process"), "{holder}");
                    waited.fetch_add(1, Ordering::SeqCst);
                };
                if let Lookup::Miss(claim) =
                    store.lookup(&manifest(0).key(), "quantize", &mut on_wait).unwrap()
                {
                    executed.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(50));
                    commit_files(claim, manifest(0), &[("a", b"1")]);
                }
            });
        }
    });
    assert_eq!(executed.into_inner(), 1);
    assert!(waited.into_inner() > 0);
}

#[test]
fn a_claim_that_fails_passes_to_the_next() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let first = claim(&store, &manifest(0));
    let Attempt::Busy(holder) = store.try_lookup(first.key(), "quantize").unwrap() else {
        panic!("not busy")
    };
    assert!(holder.contains(&format!("process {} on ", std::process::id())), "{holder}");
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            matches!(store.lookup(&manifest(0).key(), "quantize", &mut |_| {}), Ok(Lookup::Miss(_)))
        });
        std::thread::sleep(Duration::from_millis(20));
        drop(first);
        assert!(second.join().unwrap());
    });
}

#[test]
fn eight_processes_do_each_action_once() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.folder.path().join("done")).unwrap();
    let mut children: Vec<Child> =
        (0..8).map(|_| child::command("each_key_once", &fixture.root()).spawn().unwrap()).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_dir(fixture.folder.path().join("done")).unwrap().count(), 20);
    let store = Store::open(&fixture.root()).unwrap();
    assert_eq!(store.records_of("quantize", 99).unwrap().len(), 20);
}
