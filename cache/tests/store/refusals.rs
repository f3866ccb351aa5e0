//! Disks and folders that refuse, and stores of other times.

use fs_err as fs;
use qpipe_cache::{Store, StoreError};

use crate::artifacts::{Fixture, done, manifest};
use crate::child;

#[test]
fn a_read_only_store_serves_what_it_holds() {
    let fixture = Fixture::new();
    done(&fixture.store(), 0, &[("a", b"1")]);
    fs::write(fixture.folder.path().join("input"), "input").unwrap();
    let root = fixture.root().display().to_string();
    let mounts = format!("mount --bind '{root}' '{root}' && mount -o remount,bind,ro '{root}'");
    if let Some(mut command) = child::command_after(&mounts, "read_only", &fixture.root()) {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn where_no_store_can_be_made_there_is_an_empty_one() {
    let fixture = Fixture::new();
    let occupied = fixture.folder.path().join("file");
    fs::write(&occupied, "").unwrap();
    for place in [occupied.clone(), occupied.join("below")] {
        let error = Store::open(&place).unwrap_err();
        assert!(error.to_string().contains("it is a file"), "{error}");
        assert!(error.help().is_some());
    }
    // Nobody, not even root, makes folders here.
    if !std::path::Path::new("/sys/kernel").is_dir() {
        println!("skipped: /sys is not there");
        return;
    }
    let store = Store::open(std::path::Path::new("/sys/qpipe-store")).unwrap();
    assert!(store.peek(&manifest(0).key(), "quantize").unwrap().is_none());
    assert!(store.records_of("quantize", 9).unwrap().is_empty());
    let error = store.try_lookup(&manifest(0).key(), "quantize").unwrap_err();
    assert!(matches!(error, StoreError::NotWritable(_)), "{error}");
}

#[test]
fn a_full_disk_loses_nothing() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.root()).unwrap();
    let mounts = format!("mount -t tmpfs -o size=400k tmpfs '{}'", fixture.root().display());
    if let Some(mut command) = child::command_after(&mounts, "full", &fixture.root()) {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_newer_store_is_refused_with_advice() {
    let fixture = Fixture::new();
    fixture.store();
    fs::write(fixture.root().join("format"), "qpipe-store 99\n").unwrap();
    let error = Store::open(&fixture.root()).unwrap_err();
    assert!(matches!(error, StoreError::NewerFormat { found: 99, .. }));
    assert!(error.help().unwrap().contains("Update qpipe"));
}
