//! Records that are not read again: what was damaged or removed meanwhile is noticed all the same.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use qpipe_cache::{Digest, Store};

use crate::artifacts::{Fixture, done, manifest};

const ACTIONS: u64 = 40;

fn content(number: u64) -> Vec<u8> {
    format!("content {number:02}").into_bytes()
}

fn record_path(fixture: &Fixture, number: u64) -> PathBuf {
    let hex = manifest(number).key().to_string();
    fixture.root().join("actions/quantize").join(&hex[..2]).join(format!("{hex}.json"))
}

fn recalled(fixture: &Fixture) -> Store {
    let store = fixture.store();
    store.recall("study");
    store
}

fn misses(store: &Store) -> Vec<u64> {
    let is_hit = |number: u64| store.peek_output(&manifest(number).key(), "quantize").unwrap().is_some();
    (0..ACTIONS).filter(|number| !is_hit(*number)).collect()
}

/// A store whose records are all in the memo.
fn remembered() -> Fixture {
    let fixture = Fixture::new();
    for number in 0..ACTIONS {
        done(&fixture.store(), number, &[("a", &content(number))]);
    }
    std::thread::sleep(Duration::from_millis(150));
    assert!(misses(&recalled(&fixture)).is_empty());
    assert!(fixture.root().join("memos/study").is_file());
    fixture
}

#[test]
fn what_is_recalled_is_what_was_recorded() {
    let fixture = remembered();
    let store = recalled(&fixture);
    for number in 0..ACTIONS {
        let key = manifest(number).key();
        let output = store.peek_output(&key, "quantize").unwrap().unwrap();
        assert_eq!(output.tree, store.peek(&key, "quantize").unwrap().unwrap().output);
        assert!(store.peek_output(&key, "evaluate").unwrap().is_none(), "another kind");
    }
}

#[test]
fn records_and_blobs_that_changed_are_no_hits() {
    let fixture = remembered();
    let damaged = record_path(&fixture, 0);
    let modified = fs::metadata(&damaged).unwrap().modified().unwrap();
    let text = fs::read_to_string(&damaged).unwrap();
    fs::write(&damaged, text.replace("W8A8", "W4A8")).unwrap();
    // Same size, same modification time.
    fs::File::options().write(true).open(&damaged).unwrap().set_modified(modified).unwrap();
    fs::remove_file(record_path(&fixture, 1)).unwrap();
    fs::write(record_path(&fixture, 2), "").unwrap();
    fs::copy(record_path(&fixture, 4), record_path(&fixture, 3)).unwrap();
    let store = recalled(&fixture);
    fs::remove_file(store.blob_path(&Digest::of(&content(5)))).unwrap();
    let truncated = store.blob_path(&Digest::of(&content(6)));
    fs::remove_file(&truncated).unwrap();
    fs::write(&truncated, "content").unwrap();
    assert_eq!(misses(&store), [0, 1, 2, 3, 5, 6]);
    drop(store);
    assert_eq!(misses(&recalled(&fixture)), [0, 1, 2, 3, 5, 6], "and none later");
    for number in [0, 1, 2, 3, 5, 6] {
        done(&fixture.store(), number, &[("a", &content(number))]);
    }
    assert!(misses(&recalled(&fixture)).is_empty());
}

#[test]
fn a_record_that_was_put_back_is_read_again() {
    let fixture = remembered();
    let path = record_path(&fixture, 0);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let store = recalled(&fixture);
    assert_eq!(misses(&store), [0]);
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(misses(&store).is_empty());
}

#[test]
fn a_damaged_memo_and_an_empty_store_cost_time_only() {
    let fixture = remembered();
    let memo = fixture.root().join("memos/study");
    let mut bytes = fs::read(&memo).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&memo, &bytes).unwrap();
    assert!(misses(&recalled(&fixture)).is_empty());
    assert_ne!(fs::read(&memo).unwrap(), bytes, "written anew");

    fs::remove_dir_all(fixture.root().join("actions")).unwrap();
    assert_eq!(misses(&recalled(&fixture)).len() as u64, ACTIONS);
}

#[test]
fn a_record_of_this_very_moment_is_not_remembered() {
    let fixture = Fixture::new();
    for number in 0..ACTIONS {
        done(&fixture.store(), number, &[("a", &content(number))]);
        let store = recalled(&fixture);
        assert!(store.peek_output(&manifest(number).key(), "quantize").unwrap().is_some());
        let path = record_path(&fixture, number);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("W8A8", "W4A8")).unwrap();
        assert!(store.peek_output(&manifest(number).key(), "quantize").unwrap().is_none());
    }
}
