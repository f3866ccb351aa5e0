//! What a long action has finished survives its attempt.

use fs_err as fs;
use qpipe_cache::Claim;

use crate::artifacts::{Fixture, claim, commit_files, manifest};

fn unit(claim: &Claim, name: &str, content: &str) {
    fs::write(claim.staging().join("units").join(name), content).unwrap();
    claim.record_unit(name).unwrap();
}

#[test]
fn recorded_units_pass_from_attempt_to_attempt() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let first = claim(&store, &manifest(0));
    assert!(first.units().is_empty());
    unit(&first, "0001", "one");
    unit(&first, "0002", "two");
    let old = first.staging().to_owned();
    drop(first);

    let second = claim(&store, &manifest(0));
    assert_eq!(second.units(), ["0001", "0002"]);
    assert_ne!(second.staging(), old, "a worker that lives on writes elsewhere");
    unit(&second, "0003", "three");
    drop(second);

    let third = claim(&store, &manifest(0));
    assert_eq!(third.units(), ["0001", "0002", "0003"]);
    assert_eq!(fs::read(third.staging().join("units/0003")).unwrap(), b"three");
    commit_files(third, manifest(0), &[("out", b"done")]);
    assert!(fs::read_dir(fixture.root().join("staging")).unwrap().next().is_none(), "no longer needed");
}

#[test]
fn units_that_are_not_what_was_recorded_are_dropped() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let first = claim(&store, &manifest(0));
    for name in ["altered", "removed", "sound", "replaced"] {
        unit(&first, name, name);
    }
    let units = first.staging().join("units");
    fs::write(units.join("altered"), "alterex").unwrap();
    fs::remove_file(units.join("removed")).unwrap();
    fs::write(units.join("unlisted"), "x").unwrap();
    fs::write(units.join("next.partial"), "x").unwrap();
    unit(&first, "replaced", "by a later one");
    let log = first.staging().join("units.log");
    let mut text = fs::read(&log).unwrap();
    text.extend_from_slice(b"1234 torn li");
    fs::write(&log, text).unwrap();
    drop(first);

    let second = claim(&store, &manifest(0));
    assert_eq!(second.units(), ["replaced", "sound"]);
    let left: Vec<_> = fs::read_dir(second.staging().join("units"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_unit_dropped_by_the_worker_is_no_error_and_odd_names_are() {
    let fixture = Fixture::new();
    let claim = claim(&fixture.store(), &manifest(0));
    claim.record_unit("gone").unwrap();
    for name in ["", "../out/x", "a/b", ".hidden"] {
        assert!(claim.record_unit(name).is_err(), "{name}");
    }
}
