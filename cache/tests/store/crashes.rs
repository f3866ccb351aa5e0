//! Processes killed at any moment.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fs_err as fs;
use qpipe_cache::{Attempt, Store};

use crate::artifacts::{Fixture, claim, commit_files, manifest};
use crate::child;

#[test]
fn a_process_killed_while_it_commits_leaves_only_whole_results() {
    let fixture = Fixture::new();
    let first_commit = fixture.folder.path().join("committed");
    let mut committed = 0;
    for round in 0..15_u64 {
        let mut victim =
            child::command("commit_forever", &fixture.root()).stdout(Stdio::null()).spawn().unwrap();
        wait_for(&first_commit);
        // Uneven delays meet every step of a commit sooner or later.
        std::thread::sleep(Duration::from_micros(2_000 + round * 1_370));
        victim.kill().unwrap();
        victim.wait().unwrap();
        fs::remove_file(&first_commit).unwrap();

        let store = fixture.store();
        let report = store.verify(&|_, _| {}).unwrap();
        assert!(report.is_sound(), "{report:?}");
        committed = report.records;
        for record in store.records_of("quantize", usize::MAX).unwrap() {
            assert_eq!(store.peek(&record.key, "quantize").unwrap().as_ref(), Some(&record));
        }
        let next = manifest(1_000_000 + round);
        let record = commit_files(claim(&store, &next), next, &[("a", b"1")]);
        assert!(store.peek(&record.key, "quantize").unwrap().is_some(), "nothing to unlock");
    }
    assert!(committed >= 15 + 14, "each child committed, and so did this process after all but the last");
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_killed_holder_binds_nobody_and_leaves_its_recorded_units() {
    let fixture = Fixture::new();
    let mut holder = child::command("hold", &fixture.root()).spawn().unwrap();
    wait_for(&fixture.folder.path().join("held"));
    let store = fixture.store();
    let Attempt::Busy(who) = store.try_lookup(&manifest(0).key(), "quantize").unwrap() else {
        panic!("not busy")
    };
    assert!(who.contains(&holder.id().to_string()) && who.contains("run-7"), "{who}");
    let (waiting, is_waiting) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let heir = scope.spawn(|| {
            match store.lookup(&manifest(0).key(), "quantize", &mut |_| waiting.send(()).unwrap()) {
                Ok(qpipe_cache::Lookup::Miss(claim)) => claim,
                other => panic!("{other:?}"),
            }
        });
        is_waiting.recv().unwrap();
        holder.kill().unwrap();
        holder.wait().unwrap();
        let claim = heir.join().unwrap();
        assert_eq!(claim.units(), ["layer-0"]);
        assert_eq!(fs::read(claim.staging().join("units/layer-0")).unwrap(), b"zero");
        assert!(!claim.staging().join("units/layer-1").exists(), "never recorded");
        assert_eq!(fs::read_dir(claim.staging().join("out")).unwrap().count(), 0, "a clean start");
    });
}

#[test]
fn a_store_half_made_is_finished_by_the_next() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.root().join("cas")).unwrap();
    fs::write(fixture.root().join(".tmpA1b2C3"), "qpipe-st").unwrap();
    let store = Store::open(&fixture.root()).unwrap();
    claim(&store, &manifest(0));
}
