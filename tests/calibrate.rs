//! Calibrations of several sizes: each is computed once, the larger from the smaller. With a worker that has no
//! libtorch.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{TestEnv, with_status};

const STUDY: &str = "\
version: 1
name: study
params: { calib: [2000, 20, 200] }
nodes:
  base: { kind: download, model: model }
  train: { kind: download, data: train.jsonl }
  stats: { kind: calibrate, matrix: { n: \"${params.calib}\" }, model: base, data: train, samples: \"${matrix.n}\" }
";

fn env() -> TestEnv {
    let env = TestEnv::new();
    env.study();
    env.write("study.yaml", STUDY);
    env
}

/// The reasons of the nodes that were started, in the order in which they were.
fn started(events: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = events.iter().filter(|event| event["event"] == "node_started" && event["kind"] == "calibrate");
    all.map(|event| (text(&event["node"]), text(&event["reason"]))).collect()
}

fn logs(events: &[Value]) -> Vec<&str> {
    events.iter().filter(|e| e["event"] == "log").map(|e| e["message"].as_str().unwrap()).collect()
}

#[test]
fn the_larger_goes_on_from_the_smaller_whatever_their_order() {
    let env = env();
    let (code, events) = env.run("study.yaml", &["--jobs", "3"]);
    assert_eq!(code, 0);
    let started = started(&events);
    let nodes: Vec<&str> = started.iter().map(|(node, _)| node.as_str()).collect();
    assert_eq!(nodes, ["stats[n=20]", "stats[n=200]", "stats[n=2000]"]);
    assert!(!started[0].1.contains("continued"));
    assert!(started[1].1.ends_with("continued from 20 samples"), "{}", started[1].1);
    assert!(started[2].1.ends_with("continued from 200 samples"), "{}", started[2].1);
    assert_eq!(logs(&events), ["goes on from 20", "goes on from 200"]);

    let (_, events) = env.run("study.yaml", &["--set", "calib=[20,200]"]);
    assert_eq!(with_status(&events, "cached"), ["base", "stats[n=200]", "stats[n=20]", "train"]);
}

#[test]
fn an_earlier_runs_calibration_is_gone_on_from() {
    let env = env();
    env.run("study.yaml", &["--set", "calib=[20, 25]"]);
    env.write("other.yaml", &STUDY.replace("stats", "measured").replace("name: study", "name: other"));
    let (_, events) = env.run("other.yaml", &["--set", "calib=[200]"]);
    assert_eq!(logs(&events), ["goes on from 20"], "25 is no multiple of the grid");
    // Another seed, another order.
    env.write("seed.yaml", &STUDY.replace("samples:", "seed: 1, samples:"));
    let (_, events) = env.run("seed.yaml", &["--set", "calib=[200]"]);
    assert_eq!(logs(&events), [""; 0]);
    // Who forces a node wants all of it.
    let (_, events) = env.run("study.yaml", &["--set", "calib=[200]", "--force", "stats"]);
    assert_eq!(logs(&events), [""; 0]);
    assert_eq!(started(&events)[0].1, "forced");
}

#[test]
fn a_smaller_calibration_that_fails_holds_up_nobody() {
    let env = env();
    let (code, events) = env.run("study.yaml", &["--set", "calib=[2000, 990, 20]"]);
    assert_eq!(code, 4);
    assert_eq!(with_status(&events, "failed"), ["stats[n=990]"]);
    assert_eq!(with_status(&events, "ran"), ["base", "stats[n=2000]", "stats[n=20]", "train"]);
    assert!(started(&events)[2].1.ends_with("continued from 20 samples"));
}

#[test]
fn what_is_measured_follows_from_the_readers_and_is_in_the_key() {
    let env = env();
    env.run("study.yaml", &["--set", "calib=[20]"]);
    env.write("study.yaml", &STUDY.replace("samples:", "statistics: ranges, samples:"));
    let (_, events) = env.run("study.yaml", &["--set", "calib=[20]"]);
    assert_eq!(with_status(&events, "cached"), ["base", "stats[n=20]", "train"], "nobody reads it: ranges");
    env.write("study.yaml", &STUDY.replace("samples:", "statistics: moments, samples:"));
    let (_, events) = env.run("study.yaml", &["--set", "calib=[20, 200]"]);
    assert_eq!(started(&events)[0].1, "`statistics` ranges -> moments");
    // What was measured with moments serves those who want less.
    let (_, events) = env.run("study.yaml", &["--set", "calib=[200]"]);
    assert_eq!(with_status(&events, "cached"), ["base", "stats[n=200]", "train"]);
    env.write("study.yaml", STUDY);
    let (_, events) = env.run("study.yaml", &["--set", "calib=[2000]"]);
    assert_eq!(logs(&events), ["goes on from 200"]);
}
