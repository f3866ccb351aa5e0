//! The shipped studies with the real worker, on fewer questions: `pipelines/sweep.yaml` and `pipelines/ablation.yaml`.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{TestEnv, read_events, with_status};

/// Study A's rows, in its order.
const ROWS: [&str; 11] = [
    "Base Model",
    "SFT Model",
    "BnB 4-bit Model",
    "BnB 8-bit Model",
    "GPTQ 4bit calib20",
    "GPTQ 4bit calib200",
    "GPTQ 4bit calib2000",
    "SmoothQuant W8A8 calib20",
    "SmoothQuant W8A8 calib200",
    "SmoothQuant W8A8 calib2000",
    "SmoothQuant W4A8 calib200",
];

fn worker() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_qpipe")).with_file_name("qpipe-worker");
    assert!(path.is_file(), "run `cargo build --release --workspace` first");
    path
}

/// Runs the shipped pipeline `name` with `settings`: the events.
fn run(env: &TestEnv, name: &str, settings: &[&str]) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name);
    let events = env.path("events.jsonl");
    let _ = fs::remove_file(&events);
    let mut command = env.command();
    command.env("QPIPE_WORKER", worker()).arg("run").arg(file).arg("--events").arg(&events);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read_events(&events)
}

/// Nodes of `kind` that ran.
fn ran(events: &[Value], kind: &str) -> usize {
    let is_ran = |event: &&Value| {
        event["event"] == "node_finished" && event["kind"] == kind && event["status"] == "ran"
    };
    events.iter().filter(is_ran).count()
}

#[test]
fn the_sweep_has_study_as_rows_and_fewer_sizes_calibrate_nothing_again() {
    let env = TestEnv::new();
    let few = ["limit=24", "questions=2", "steps=4"];
    let events = run(&env, "sweep.yaml", &few);
    // The W4A8 row reads the calibration on 200 samples that is there already.
    assert_eq!((ran(&events, "calibrate"), ran(&events, "quantize")), (3, 9));

    let text = fs::read_to_string(env.path("results/sweep/results.json")).unwrap();
    let places: Vec<usize> = ROWS.iter().map(|row| text.find(&format!("\"{row}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "rows are not in the order of the study");
    let rows: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows.as_object().unwrap().len(), ROWS.len());
    for row in ROWS {
        assert_eq!(rows[row]["n"], 24);
        assert!(rows[row]["avg_peak_vram_MB"].as_f64().unwrap() > 0.0);
    }
    // Every variant takes less memory than the model that it was made from.
    let peak = |row: &str| rows[row]["avg_peak_vram_MB"].as_f64().unwrap();
    for row in &ROWS[2..] {
        assert!(peak(row) < peak("SFT Model"), "{row}");
    }

    let events = run(&env, "sweep.yaml", &[&few[..], &["calib=[20,200]"]].concat());
    assert_eq!(with_status(&events, "ran"), ["report"]);
}

#[test]
fn forty_eight_variants_calibrate_each_size_once() {
    let env = TestEnv::new();
    let events = run(&env, "ablation.yaml", &["limit=8", "calib=[10,20,40]"]);
    assert_eq!((ran(&events, "calibrate"), ran(&events, "quantize")), (3, 48));
    assert_eq!(ran(&events, "evaluate"), 49);
    let starts = events.iter().filter(|event| event["event"] == "node_started");
    let calibrations = starts.filter(|event| event["node"].as_str().unwrap().starts_with("stats[")).count();
    assert_eq!(calibrations, 3);
}
