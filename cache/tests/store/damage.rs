//! Blobs and records that are not what they were.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;
use qpipe_cache::{Digest, Record, RecordFault};

use crate::artifacts::{Fixture, claim, commit_files, done, manifest};

fn make_writable(path: &Path) {
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn a_flipped_byte_is_found_moved_out_and_computed_again() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let large = vec![7; 2 << 20];
    let record = done(&store, 0, &[("weights", &large), ("config", b"{}")]);
    let sound = done(&store, 1, &[("a", b"1")]);
    let blob = store.blob_path(&record.output.files["weights"].digest);
    make_writable(&blob);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[1_500_000] ^= 1;
    fs::write(&blob, &bytes).unwrap();

    let heard = std::sync::atomic::AtomicU64::new(0);
    let report = store
        .verify(&|done, total| {
            assert!(done <= total);
            heard.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
        })
        .unwrap();
    assert_eq!((report.blobs, report.bytes, report.records), (3, (2 << 20) + 3, 2));
    assert_eq!(heard.into_inner(), report.bytes);
    let [corrupt] = report.corrupt.as_slice() else { panic!("{report:?}") };
    assert_eq!(corrupt.digest, Digest::of(&large));
    assert_eq!(corrupt.actual, Digest::of(&bytes));
    assert!(corrupt.moved_to.as_ref().unwrap().is_file());
    let [broken] = report.records_broken.as_slice() else { panic!("{report:?}") };
    assert_eq!(broken.fault, RecordFault::MissingBlob(corrupt.digest));
    assert_eq!(broken.node.as_deref(), Some("w8"));

    assert!(store.peek(&record.key, "quantize").unwrap().is_none(), "computed again");
    assert!(store.peek(&sound.key, "quantize").unwrap().is_some());
    done(&store, 0, &[("weights", &large), ("config", b"{}")]);
    assert!(store.verify(&|_, _| {}).unwrap().is_sound());
}

#[test]
fn what_was_made_from_a_corrupt_blob_is_computed_again() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let from = |number: u64, source: &Record| {
        let mut manifest = manifest(number);
        manifest.inputs.insert("models".to_owned(), serde_json::json!([source.output.digest()]));
        commit_files(claim(&store, &manifest), manifest, &[("scores", number.to_string().as_bytes())])
    };
    let source = done(&store, 0, &[("weights", b"0123456789")]);
    let other = done(&store, 1, &[("weights", b"other")]);
    let made = from(2, &source);
    let second = from(3, &made);
    let unrelated = from(4, &other);
    let blob = store.blob_path(&source.output.files["weights"].digest);
    make_writable(&blob);
    fs::write(&blob, b"0123456780").unwrap();

    let report = store.verify(&|_, _| {}).unwrap();
    let faults: Vec<&RecordFault> = report.records_broken.iter().map(|record| &record.fault).collect();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert_eq!(
        faults[1..],
        [&RecordFault::Tainted(source.output.digest()), &RecordFault::Tainted(made.output.digest())]
    );
    for (record, is_kept) in [(&made, false), (&second, false), (&unrelated, true), (&other, true)] {
        assert_eq!(store.peek(&record.key, "quantize").unwrap().is_some(), is_kept);
    }
}

#[test]
fn a_truncated_or_missing_blob_is_a_miss_without_being_asked_for() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for number in 0..2 {
        let record = done(&store, number, &[("a", b"0123456789"), ("b", b"b")]);
        let blob = store.blob_path(&Digest::of(b"0123456789"));
        make_writable(&blob);
        if number == 0 {
            fs::write(&blob, "01234").unwrap();
        } else {
            fs::remove_file(&blob).unwrap();
        }
        assert!(store.peek(&record.key, "quantize").unwrap().is_none());
        let dest = fixture.folder.path().join("inputs");
        assert!(store.materialise(&record.output, &dest).unwrap_err().to_string().contains("lacks the blob"));
        let again = done(&store, number, &[("a", b"0123456789"), ("b", b"b")]);
        assert!(store.peek(&again.key, "quantize").unwrap().is_some());
    }
}

#[test]
fn a_damaged_record_is_a_miss_and_reported() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let record = done(&store, 0, &[("a", b"1")]);
    let hex = record.key.to_string();
    let path = fixture.root().join("actions/quantize").join(&hex[..2]).join(format!("{hex}.json"));
    let whole = fs::read_to_string(&path).unwrap();
    for damaged in [whole.replace("W8A8", "W4A8"), whole[..whole.len() / 2].to_owned(), String::new()] {
        fs::write(&path, damaged).unwrap();
        assert!(store.peek(&record.key, "quantize").unwrap().is_none());
        let report = store.verify(&|_, _| {}).unwrap();
        assert_eq!(report.records_broken[0].fault, RecordFault::Damaged);
        assert!(report.corrupt.is_empty());
    }
    drop(claim(&store, &manifest(0)));
    done(&store, 0, &[("a", b"1")]);
    assert!(store.verify(&|_, _| {}).unwrap().is_sound());
}

#[test]
fn a_record_under_a_foreign_name_is_no_hit() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let record = done(&store, 0, &[("a", b"1")]);
    let hex = record.key.to_string();
    let shard = fixture.root().join("actions/quantize").join(&hex[..2]);
    let other = manifest(1).key();
    let other_shard = fixture.root().join("actions/quantize").join(&other.to_string()[..2]);
    fs::create_dir_all(&other_shard).unwrap();
    fs::copy(shard.join(format!("{hex}.json")), other_shard.join(format!("{other}.json"))).unwrap();
    assert!(store.peek(&other, "quantize").unwrap().is_none());
}

#[test]
fn folders_removed_by_hand_cost_their_content_and_no_more() {
    let fixture = Fixture::new();
    done(&fixture.store(), 0, &[("a", b"1")]);
    for guest in ["cuda", "downloads", "memos"] {
        fs::create_dir(fixture.root().join(guest)).unwrap();
    }
    for (number, folder) in ["cas", "locks", "staging", "actions"].into_iter().enumerate() {
        fs::remove_dir_all(fixture.root().join(folder)).unwrap();
        done(&fixture.store(), number as u64 + 1, &[("a", b"1")]);
    }
}
