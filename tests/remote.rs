//! Remote sources through the whole program: fetched once, pinned in the lock file, never asked for again.
#![allow(missing_docs, clippy::unwrap_used)]

#[expect(dead_code, reason = "faults and gates are for tests/fetch.rs")]
mod hub_server;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use hub_server::{COMMIT, HubServer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::{TestEnv, read_events, statuses, with_status};

const ROWS: &[u8] = b"{\"text\": \"from the web\"}\n";

fn server() -> HubServer {
    let server = HubServer::start();
    server.add("org/model", "config.json", b"{}", false);
    server.add("org/model", "model.safetensors", b"weights from the hub", true);
    server.add("org/model", "README.md", b"not needed", false);
    server.add("org/files", "train.jsonl", ROWS, false);
    server
}

fn study(env: &TestEnv, server: &HubServer) {
    env.write("heldout.jsonl", "{}\n");
    let digest: String = Sha256::digest(ROWS).iter().map(|byte| format!("{byte:02x}")).collect();
    let url = format!("{}/org/files/resolve/{COMMIT}/train.jsonl", server.endpoint);
    let text = format!(
        "version: 1\nname: remote\nnodes:\n  \
         base: {{ kind: download, model: \"hf://org/model\" }}\n  \
         train: {{ kind: download, data: \"{url}\", digest: \"sha256:{digest}\" }}\n  \
         tuned: {{ kind: sft, model: base, data: train, steps: 1 }}\n"
    );
    env.write("remote.yaml", &text);
}

fn command(env: &TestEnv, server: &HubServer, args: &[&str]) -> Command {
    let mut command = env.command();
    command
        .env("HF_ENDPOINT", &server.endpoint)
        .args(["run", "remote.yaml", "--events", "events.jsonl"])
        .args(args);
    command
}

fn run(env: &TestEnv, server: &HubServer, args: &[&str]) -> (i32, Vec<Value>) {
    let _ = fs::remove_file(env.path("events.jsonl"));
    let output = command(env, server, args).output().unwrap();
    (output.status.code().unwrap(), read_events(&env.path("events.jsonl")))
}

#[test]
fn remote_sources_are_fetched_once_and_pinned() {
    let env = TestEnv::new();
    let hub = server();
    study(&env, &hub);

    let (code, _) = run(&env, &hub, &["--locked"]);
    assert_eq!(code, 3, "--locked does not ask for what is not pinned");
    assert!(hub.asked().is_empty());

    let (code, events) = run(&env, &hub, &[]);
    assert_eq!(code, 0, "{events:#?}");
    assert_eq!(with_status(&events, "ran"), ["base", "train", "tuned"]);
    let lock = fs::read_to_string(env.path("remote.yaml.lock")).unwrap();
    assert!(lock.contains("hf://org/model") && lock.contains(COMMIT), "{lock}");
    hub.asked();

    let (code, events) = run(&env, &hub, &["--locked"]);
    assert_eq!(code, 0);
    assert_eq!(with_status(&events, "cached"), ["base", "train", "tuned"], "{:?}", statuses(&events));
    assert!(hub.asked().is_empty(), "a cached run needs no network");
    assert_eq!(fs::read_to_string(env.path("remote.yaml.lock")).unwrap(), lock);
}

#[test]
fn a_teammate_gets_the_pinned_bytes() {
    let env = TestEnv::new();
    let hub = server();
    study(&env, &hub);
    assert_eq!(run(&env, &hub, &[]).0, 0);
    let lock = fs::read_to_string(env.path("remote.yaml.lock")).unwrap();

    let teammate = TestEnv::new();
    study(&teammate, &hub);
    teammate.write("remote.yaml.lock", &lock);
    let (code, events) = run(&teammate, &hub, &["--locked"]);
    assert_eq!(code, 0, "{events:#?}");
    assert_eq!(with_status(&events, "ran"), ["base", "train", "tuned"]);

    // The branch moved on: what the lock file says cannot be had any more, and nothing else is taken for it.
    hub.add("org/model", "model.safetensors", b"other weights entirely", true);
    let late = TestEnv::new();
    study(&late, &hub);
    late.write("remote.yaml.lock", &lock);
    let (code, events) = run(&late, &hub, &["--locked"]);
    assert_ne!(code, 0);
    assert_eq!(with_status(&events, "failed"), ["base"], "{:?}", statuses(&events));
}

#[test]
fn what_an_address_asks_of_its_server_is_no_part_of_the_files_name() {
    let env = TestEnv::new();
    let hub = server();
    study(&env, &hub);
    let text = fs::read_to_string(env.path("remote.yaml")).unwrap();
    env.write("remote.yaml", &text.replace("train.jsonl\"", "train.jsonl?download=true\""));
    assert_eq!(run(&env, &hub, &[]).0, 0);
    let lock = fs::read_to_string(env.path("remote.yaml.lock")).unwrap();
    assert!(lock.lines().any(|line| line.starts_with("file ") && line.ends_with(" data.jsonl")), "{lock}");
}

#[test]
fn a_wrong_digest_is_refused() {
    let env = TestEnv::new();
    let hub = server();
    study(&env, &hub);
    hub.add("org/files", "train.jsonl", b"{\"text\": \"tampered with\"}\n", false);
    let (code, events) = run(&env, &hub, &["--only", "train"]);
    assert_ne!(code, 0);
    let failure = events.iter().find(|e| e["status"] == "failed").unwrap();
    assert!(failure["reason"].as_str().unwrap().contains("sha256"), "{failure}");
}

const OTHER: &[u8] = b"{\"text\": \"mended\"}\n";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn another_digest_of_a_web_file_is_other_data() {
    let env = TestEnv::new();
    let hub = server();
    study(&env, &hub);
    assert_eq!(run(&env, &hub, &[]).0, 0);
    let lock = fs::read_to_string(env.path("remote.yaml.lock")).unwrap();
    let asked_for = format!("revision sha256:{}\n", sha256(ROWS));
    assert!(lock.contains(&asked_for), "{lock}");

    hub.add("org/files", "train.jsonl", OTHER, false);
    let text = fs::read_to_string(env.path("remote.yaml")).unwrap();
    env.write("remote.yaml", &text.replace(&sha256(ROWS), &sha256(OTHER)));
    assert_eq!(run(&env, &hub, &["--locked"]).0, 3, "the lock file speaks of other bytes");
    let (code, events) = run(&env, &hub, &[]);
    assert_eq!((code, with_status(&events, "ran")), (0, vec!["train".to_owned(), "tuned".to_owned()]));

    // A lock file that does not say which digest it answers: nothing is recorded under the key of other bytes.
    let teammate = TestEnv::new();
    study(&teammate, &hub);
    teammate.write("remote.yaml", &fs::read_to_string(env.path("remote.yaml")).unwrap());
    teammate.write("remote.yaml.lock", &lock.replace(&asked_for, ""));
    let (code, events) = run(&teammate, &hub, &["--only", "train"]);
    assert_eq!(code, 4, "{events:#?}");
    let failure = events.iter().find(|e| e["status"] == "failed").unwrap();
    assert!(failure["reason"].as_str().unwrap().contains("remote.yaml.lock"), "{failure}");
    assert!(failure["help"].as_str().unwrap().contains("Remove the source's lines"), "{failure}");
}

/// A process that is killed between two files leaves a folder that nobody has looked at.
#[test]
fn what_a_killed_process_left_is_looked_at() {
    let env = TestEnv::new();
    let hub = server();
    study(&env, &hub);
    assert_eq!(run(&env, &hub, &["--only", "base"]).0, 0);
    let (_, plan, _) = env.qpipe(&["plan", "remote.yaml", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&plan).unwrap();
    let key = rows.iter().find(|row| row["node"] == "base").unwrap()["key"].as_str().unwrap().to_owned();

    let teammate = TestEnv::new();
    study(&teammate, &hub);
    teammate.write("remote.yaml.lock", &fs::read_to_string(env.path("remote.yaml.lock")).unwrap());
    let left = format!(".qpipe/downloads/{key}");
    teammate.write(&format!("{left}/model.safetensors"), "weights from the hut");
    teammate.write(&format!("{left}/model-9.safetensors"), "of another commit");
    let (code, events) = run(&teammate, &hub, &["--only", "base"]);
    assert_eq!(code, 0, "{events:#?}");
    assert_eq!(teammate.qpipe(&["cache", "verify"]).0, 0);
    assert!(!teammate.path(&left).exists());
    let (_, plan, _) = teammate.qpipe(&["plan", "remote.yaml"]);
    assert!(plan.contains("base   download    cached"), "{plan}");
}

#[test]
fn a_model_and_an_adapter_of_one_repository_are_two() {
    let env = TestEnv::new();
    let hub = server();
    study(&env, &hub);
    hub.add("org/model", "adapter_config.json", b"{}", false);
    hub.add("org/model", "adapter_model.safetensors", b"an adapter", true);
    env.write(
        "remote.yaml",
        "version: 1\nname: remote\nnodes:\n  \
         base: { kind: download, model: \"hf://org/model\" }\n  \
         lora: { kind: download, adapter: \"hf://org/model\" }\n  \
         tuned: { kind: sft-merge, model: base, adapter: lora }\n",
    );
    for nodes in [&["--only", "base"][..], &[]] {
        let (code, events) = run(&env, &hub, nodes);
        assert_eq!(code, 0, "{events:#?}");
    }
    let lock = fs::read_to_string(env.path("remote.yaml.lock")).unwrap();
    let sources: Vec<&str> = lock.lines().filter(|line| line.starts_with("source")).collect();
    assert_eq!(sources, ["source adapter hf://org/model", "source hf://org/model"]);
    assert!(lock.contains(" adapter_model.safetensors") && lock.contains(" model.safetensors"), "{lock}");
}

/// Another process pins a source while this one waits for its turn, and is killed before its download is checked.
#[test]
fn what_another_process_has_pinned_is_downloaded_all_the_same() {
    let other = TestEnv::new();
    let hub = server();
    study(&other, &hub);
    assert_eq!(run(&other, &hub, &["--only", "base"]).0, 0);
    let (_, plan, _) = other.qpipe(&["plan", "remote.yaml", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&plan).unwrap();
    let key = rows.iter().find(|row| row["node"] == "base").unwrap()["key"].as_str().unwrap().to_owned();

    let env = TestEnv::new();
    study(&env, &hub);
    assert_eq!(run(&env, &hub, &["--only", "train"]).0, 0, "the store is there");
    let turn = qpipe_cache::Digest::of(b"download\0hf://org/model");
    let path = env.write(&format!(".qpipe/locks/{turn}"), "another process");
    let held = fs::File::open(&path).unwrap();
    held.lock().unwrap();
    // Wherever a download may lie.
    let by_source = qpipe_cache::Digest::of(b"model\0hf://org/model");
    for folder in [key, turn.to_string(), by_source.to_string()] {
        env.write(&format!(".qpipe/downloads/{folder}/config.json"), "{}");
        env.write(&format!(".qpipe/downloads/{folder}/model.safetensors"), "half of the weights");
    }
    let _ = fs::remove_file(env.path("events.jsonl"));
    let mut child = command(&env, &hub, &["--only", "base"]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    fs::copy(other.path("remote.yaml.lock"), env.path("remote.yaml.lock")).unwrap();
    fs::remove_file(&path).unwrap();
    drop(held);
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let (_, plan, _) = env.qpipe(&["plan", "remote.yaml"]);
    assert!(plan.contains("base   download    cached"), "{plan}");
    let (code, events) = run(&env, &hub, &["--force", "base", "--only", "base"]);
    assert_eq!(code, 0, "{events:#?}");
    let stored = blobs(&env.path(".qpipe/cas"));
    assert!(stored.contains(&b"weights from the hub".to_vec()));
    assert!(!stored.contains(&b"half of the weights".to_vec()), "nothing unchecked was recorded");
}

fn blobs(folder: &Path) -> Vec<Vec<u8>> {
    let shards = fs::read_dir(folder).unwrap().map(|shard| shard.unwrap().path());
    let files = shards.flat_map(|shard| fs::read_dir(shard).unwrap());
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

/// The same content may be a folder of the user's, of which the store holds no copy.
#[test]
fn a_source_that_is_also_a_local_folder_is_fetched() {
    for pinned in [false, true] {
        let env = TestEnv::new();
        let hub = server();
        study(&env, &hub);
        let local = fs::read_to_string(env.path("remote.yaml")).unwrap().replace("hf://org/model", "copy");
        if pinned {
            let other = TestEnv::new();
            study(&other, &hub);
            assert_eq!(run(&other, &hub, &["--only", "base"]).0, 0);
            let lock = fs::read_to_string(other.path("remote.yaml.lock")).unwrap();
            env.write("remote.yaml.lock", &lock);
        }
        env.write("copy/config.json", "{}");
        env.write("copy/model.safetensors", "weights from the hub");
        env.write("local.yaml", &local);
        assert_eq!(env.run("local.yaml", &["--only", "base"]).0, 0);
        fs::remove_dir_all(env.path("copy")).unwrap();

        let (code, events) = run(&env, &hub, &[]);
        assert_eq!(code, 0, "{events:#?}");
        assert_eq!(with_status(&events, "ran"), ["base", "train", "tuned"]);
        let (code, events) = run(&env, &hub, &[]);
        assert_eq!((code, with_status(&events, "cached").len()), (0, 3));
    }
}
