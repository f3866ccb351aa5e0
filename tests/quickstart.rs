//! The whole way with the real worker, on the small model that ships: from the file to the report, twice; and
//! with the worker killed in each kind of node.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{TestEnv, read_events, statuses, with_status};

/// The quickstart, with fewer steps and questions.
fn pipeline(env: &TestEnv) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("pipelines/quickstart.yaml")).unwrap();
    let heldout = fs::read_to_string(root.join("examples/data/heldout.jsonl")).unwrap();
    let few: Vec<&str> = heldout.lines().take(120).collect();
    env.write("heldout.jsonl", &(few.join("\n") + "\n"));
    let examples = root.join("examples").display().to_string();
    let text = text
        .replace("../examples/data/heldout.jsonl", "heldout.jsonl")
        .replace("../examples", &examples)
        .replace("steps: 150", "steps: 30")
        .replace("questions: 50", "questions: 5");
    assert!(text.contains("steps: 30") && text.contains("questions: 5"), "the quickstart changed");
    env.write("quickstart.yaml", &text)
}

fn worker() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_qpipe")).with_file_name("qpipe-worker");
    assert!(path.is_file(), "run `cargo build --release --workspace` first");
    path
}

fn qpipe(env: &TestEnv) -> Command {
    let mut command = env.command();
    command.env("QPIPE_WORKER", worker()).args(["run", "quickstart.yaml", "--events", "events.jsonl"]);
    command
}

/// Runs to the end; exit code and events.
fn run(env: &TestEnv) -> (i32, Vec<Value>) {
    let events = env.path("events.jsonl");
    let _ = fs::remove_file(&events);
    let output = qpipe(env).output().unwrap();
    (output.status.code().unwrap(), read_events(&events))
}

/// results.json without what is measured.
fn results(env: &TestEnv) -> BTreeMap<String, Value> {
    let text = fs::read_to_string(env.path("results/quickstart/results.json")).unwrap();
    let mut rows: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    for row in rows.values_mut() {
        for measured in
            ["avg_time_s", "tokens_per_s", "avg_peak_vram_MB", "score_acc_over_vram", "benchmarks"]
        {
            row.as_object_mut().unwrap().remove(measured).unwrap();
        }
    }
    rows
}

#[test]
fn the_quickstart_runs_to_its_report_and_then_computes_nothing() {
    let env = TestEnv::new();
    pipeline(&env);
    let (code, events) = run(&env);
    assert_eq!(code, 0, "{:#?}", events.iter().filter(|e| e["status"] == "failed").collect::<Vec<_>>());
    assert_eq!(with_status(&events, "ran").len(), 16);

    let text = fs::read_to_string(env.path("results/quickstart/results.json")).unwrap();
    let rows: Value = serde_json::from_str(&text).unwrap();
    let names = ["Base Model", "SFT Model", "W8A8", "W4A16 g128"];
    assert_eq!(rows.as_object().unwrap().len(), names.len());
    for name in names {
        let row = &rows[name];
        assert_eq!(row["n"], 120);
        assert!(row["avg_time_s"].as_f64().unwrap() > 0.0);
        assert!(row["tokens_per_s"].as_f64().unwrap() > 0.0);
    }
    let accuracy = |name: &str| rows[name]["accuracy"].as_f64().unwrap();
    assert!(accuracy("SFT Model") > accuracy("Base Model") + 0.2, "fine-tuning shows");
    assert!((accuracy("W8A8") - accuracy("SFT Model")).abs() < 0.05);
    let memory = |name: &str| rows[name]["avg_peak_vram_MB"].as_f64().unwrap();
    assert!(memory("W4A16 g128") < memory("W8A8") && memory("W8A8") < memory("SFT Model"), "{text}");
    assert_eq!(rows["W8A8"]["vs_baseline"]["baseline"], "SFT Model");
    let samples = fs::read_to_string(env.path("results/quickstart/samples/scores[w4].jsonl")).unwrap();
    assert_eq!(samples.lines().count(), 120);

    let started = Instant::now();
    let (code, events) = run(&env);
    let elapsed = started.elapsed();
    assert_eq!(code, 0);
    assert_eq!(with_status(&events, "cached").len(), 16, "{:?}", statuses(&events));
    assert!(elapsed < Duration::from_millis(500), "a cached run took {elapsed:?}");
}

#[test]
fn qpipe_itself_does_not_link_libtorch() {
    let binary = fs::read(env!("CARGO_BIN_EXE_qpipe")).unwrap();
    let name = b"libtorch_cpu.so";
    assert!(!binary.windows(name.len()).any(|window| window == name));
}

/// A worker that is killed fails its node and nothing else; the next run goes on and comes to the same results.
#[test]
fn a_worker_killed_in_any_kind_of_node_costs_only_that_node() {
    let undisturbed = TestEnv::new();
    pipeline(&undisturbed);
    assert_eq!(run(&undisturbed).0, 0);
    let expected = results(&undisturbed);

    let env = TestEnv::new();
    pipeline(&env);
    for victim in ["adapter", "tuned", "w4", "scores[tuned]", "speed[base]"] {
        let events = env.path("events.jsonl");
        let _ = fs::remove_file(&events);
        let mut child = qpipe(&env).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Its first progress: before that the worker may not have been started.
        let sign = format!("\"event\":\"progress\",\"node\":\"{victim}\"");
        let begun =
            wait_until(&mut child, || fs::read_to_string(&events).is_ok_and(|text| text.contains(&sign)));
        if begun {
            for worker in children(child.id()) {
                let pid = rustix::process::Pid::from_raw(worker).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        child.wait().unwrap();
        let failed = with_status(&read_events(&events), "failed");
        // Short nodes may have ended before the signal came; long ones cannot have.
        assert!(victim != "adapter" || failed.contains(&victim.to_owned()), "{failed:?}");
    }
    assert_eq!(run(&env).0, 0);
    assert_eq!(results(&env), expected);
}

fn wait_until(child: &mut Child, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Process numbers whose parent is `parent`.
fn children(parent: u32) -> Vec<i32> {
    let parent_line = format!("PPid:\t{parent}");
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line == parent_line)
        })
        .collect()
}
