//! Jobs for other processes.

use std::path::Path;
use std::process::Command;

use fs_err as fs;
use qpipe_cache::{Lookup, Store, StoreError};

use crate::artifacts::{commit_files, manifest, meta};

const JOB: &str = "QPIPE_CACHE_TEST_JOB";
const STORE: &str = "QPIPE_CACHE_TEST_STORE";

/// A process that runs `job` on the store at `root`: the caller adds what else it needs and spawns it.
pub(crate) fn command(job: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child::job", "--nocapture"]);
    on_job(&mut command, job, root);
    command
}

/// The same in a mount namespace of its own, after `mounts` (a line of shell). `None` where this user may
/// not mount.
pub(crate) fn command_after(mounts: &str, job: &str, root: &Path) -> Option<Command> {
    let allowed =
        Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success());
    if !allowed {
        println!("skipped: mounting needs privileges");
        return None;
    }
    let mut command = Command::new("unshare");
    let shell = format!("{mounts} && exec \"$0\" --exact child::job --nocapture");
    command.args(["-m", "sh", "-ec", &shell]).arg(std::env::current_exe().unwrap());
    on_job(&mut command, job, root);
    Some(command)
}

fn on_job(command: &mut Command, job: &str, root: &Path) {
    command.env(JOB, job).env(STORE, root);
}

#[test]
fn job() {
    let (Ok(job), Some(root)) = (std::env::var(JOB), std::env::var_os(STORE)) else { return };
    let root = Path::new(&root);
    match job.as_str() {
        "each_key_once" => each_key_once(root),
        "commit_forever" => commit_forever(root),
        "hold" => hold(root),
        "read_only" => read_only(root),
        "full" => full(root),
        other => panic!("no job {other}"),
    }
}

/// Does twenty actions, or waits for whoever does them, and notes those it did in the folder `done`.
fn each_key_once(root: &Path) {
    let store = Store::open(root).unwrap();
    let done = root.with_file_name("done");
    for number in 0..20 {
        let manifest = manifest(number);
        match store.lookup(&manifest.key(), &manifest.kind, &mut |_| {}).unwrap() {
            Lookup::Hit(record) => assert_eq!(record.manifest, manifest),
            Lookup::Miss(claim) => {
                fs::File::create_new(done.join(number.to_string())).expect("no other process did this");
                std::thread::sleep(std::time::Duration::from_millis(2));
                commit_files(claim, manifest, &[("out.txt", b"result")]);
            }
        }
    }
}

/// Commits ever new actions of several files until it is killed.
fn commit_forever(root: &Path) {
    let store = Store::open(root).unwrap();
    for number in 0.. {
        let manifest = manifest(number);
        if let Lookup::Miss(claim) = store.lookup(&manifest.key(), &manifest.kind, &mut |_| {}).unwrap() {
            let large = vec![number as u8; 100_000];
            let text = number.to_string();
            let files: [(&str, &[u8]); 3] =
                [("a.bin", &large), ("sub/b.txt", text.as_bytes()), ("empty", b"")];
            commit_files(claim, manifest, &files);
            fs::write(root.with_file_name("committed"), "").unwrap();
        }
    }
}

/// Claims action 0, leaves half of an output, says so, and waits to be killed.
fn hold(root: &Path) {
    let store = Store::open(root).unwrap();
    store.set_run("run-7");
    let manifest = manifest(0);
    let Lookup::Miss(claim) = store.lookup(&manifest.key(), &manifest.kind, &mut |_| {}).unwrap() else {
        panic!("somebody was faster");
    };
    fs::write(claim.staging().join("out/half"), "hal").unwrap();
    fs::write(claim.staging().join("units/layer-0"), "zero").unwrap();
    claim.record_unit("layer-0").unwrap();
    fs::write(claim.staging().join("units/layer-1"), "not recorded").unwrap();
    fs::write(root.with_file_name("held"), "").unwrap();
    loop {
        std::thread::park();
    }
}

/// Hits action 0 and is refused action 1, in a store that cannot be written.
fn read_only(root: &Path) {
    let store = Store::open(root).unwrap();
    let known = manifest(0);
    let Lookup::Hit(record) = store.lookup(&known.key(), &known.kind, &mut |_| {}).unwrap() else {
        panic!("action 0 was committed before");
    };
    assert_eq!(store.peek(&known.key(), "quantize").unwrap().unwrap(), record);
    assert_eq!(store.records_of(&known.kind, 5).unwrap().len(), 1);
    let input = root.with_file_name("input");
    assert_eq!(store.stat_cache().digest_file(&input).unwrap().1, 5);
    let report = store.verify(&|_, _| {}).unwrap();
    assert!(report.is_sound());

    let unknown = manifest(1);
    let error = store.lookup(&unknown.key(), &unknown.kind, &mut |_| {}).unwrap_err();
    assert!(matches!(error, StoreError::NotWritable(_)), "{error:?}");
    assert!(error.to_string().contains(&root.display().to_string()), "{error}");
    assert!(error.help().unwrap().contains("QPIPE_CACHE"));
}

/// Fills a small disk; what was committed before stays, and the error says what is wrong.
fn full(root: &Path) {
    let store = Store::open(root).unwrap();
    let mut committed = 0;
    let error = loop {
        let manifest = manifest(committed);
        let Lookup::Miss(claim) = store.lookup(&manifest.key(), &manifest.kind, &mut |_| {}).unwrap() else {
            panic!("nobody else is here");
        };
        let content = vec![committed as u8; 16 << 10];
        if fs::write(claim.staging().join("out/file"), &content).is_err() {
            // The worker met the full disk; fill the rest and meet it in the commit.
            fs::write(claim.staging().join("out/file"), "small").unwrap();
            let filler = claim.staging().join("filler");
            while fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&filler)
                .and_then(|mut file| std::io::Write::write_all(&mut file, &[1; 4096]))
                .is_ok()
            {}
            break claim.commit(manifest, meta()).unwrap_err();
        }
        match claim.commit(manifest, meta()) {
            Ok(_) => committed += 1,
            Err(error) => break error,
        }
        assert!(committed < 1000, "the disk is not small");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert!(error.to_string().contains(&root.display().to_string()), "{error}");
    assert!(error.help().unwrap().contains("space"));
    assert!(committed > 0);
    for number in 0..committed {
        assert!(
            store.peek(&manifest(number).key(), "quantize").unwrap().is_some(),
            "action {number} is kept"
        );
    }
    assert!(store.verify(&|_, _| {}).unwrap().is_sound());
}
