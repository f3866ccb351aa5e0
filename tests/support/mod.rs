//! A folder of its own, a clean environment, and the worker without libtorch.
#![allow(dead_code, missing_docs, clippy::unwrap_used, unreachable_pub)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

pub struct TestEnv {
    root: TempDir,
}

impl TestEnv {
    pub fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("work")).unwrap();
        Self { root }
    }

    /// The working directory.
    pub fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.work().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A model, data and a pipeline of nine nodes: two trained models, their merges, evaluations, a report.
    pub fn study(&self) -> PathBuf {
        self.write("model/config.json", "{}");
        self.write("model/model.safetensors", "weights");
        self.write("train.jsonl", "{\"text\": \"a\"}\n");
        self.write("heldout.jsonl", "{}\n");
        self.write("study.yaml", STUDY)
    }

    pub fn command(&self) -> Command {
        self.command_in(&self.work())
    }

    pub fn command_in(&self, folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qpipe"));
        command
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root.path())
            .env("TMPDIR", self.root.path())
            .env("NO_COLOR", "1")
            .env("QPIPE_DEVICE", "cpu")
            .env("QPIPE_WORKER", fake_worker())
            .env("FAKE_WORKER_LOG", self.root.path().join("actions.log"));
        command
    }

    /// Runs `qpipe ARGS` and tells its exit code, stdout and stderr.
    pub fn qpipe(&self, args: &[&str]) -> (i32, String, String) {
        told(self.command().args(args).output().unwrap())
    }

    /// `qpipe run FILE ARGS`: exit code and the `node_finished` events by node.
    pub fn run(&self, file: &str, args: &[&str]) -> (i32, Vec<Value>) {
        let events = self.root.path().join("events.jsonl");
        let _ = fs::remove_file(&events);
        let output = self.command().args(["run", file, "--events"]).arg(&events).args(args).output().unwrap();
        (output.status.code().unwrap(), read_events(&events))
    }

    /// The kinds of the actions that workers were given, in order.
    pub fn actions(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.path().join("actions.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

pub const STUDY: &str = "\
version: 1
name: study
nodes:
  base: { kind: download, model: model, label: Base }
  train: { kind: download, data: train.jsonl }
  heldout: { kind: download, data: heldout.jsonl }
  adapter: { kind: sft, model: base, data: train, lora: { rank: 4 }, steps: 3 }
  tuned: { kind: sft-merge, model: base, adapter: adapter, label: Tuned }
  small: { kind: quantize, model: tuned, method: rtn, scheme: W4A16, label: Small }
  scores: { kind: evaluate, for_each: [base, tuned, small], model: \"${item}\", data: heldout, topic: things }
  speed: { kind: benchmark, for_each: [base, tuned, small], model: \"${item}\", data: heldout, topic: things }
  report: { kind: report, evaluations: scores, benchmarks: speed }
";

pub fn told(output: Output) -> (i32, String, String) {
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

pub fn read_events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `node: status` of every node of a run, sorted.
pub fn statuses(events: &[Value]) -> Vec<String> {
    let mut list: Vec<String> = events
        .iter()
        .filter(|event| event["event"] == "node_finished")
        .map(|event| format!("{} {}", event["node"].as_str().unwrap(), event["status"].as_str().unwrap()))
        .collect();
    list.sort();
    list
}

/// The nodes that ended with `status`, sorted.
pub fn with_status(events: &[Value], status: &str) -> Vec<String> {
    statuses(events)
        .iter()
        .filter_map(|line| line.strip_suffix(&format!(" {status}")))
        .map(str::to_owned)
        .collect()
}

/// Built beside the tests, as an example of the package.
pub fn fake_worker() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples").join("fake_worker");
    // `cargo test` builds examples; `cargo test --test engine` does not.
    assert!(path.is_file(), "run `cargo build --release --example fake_worker` first");
    path
}
