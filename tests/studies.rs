//! The shipped studies with the real worker, on fewer questions: `pipelines/sweep.yaml`, `pipelines/ablation.yaml` and, on the
//! real data of QPIPE_TEST_DATA, `pipelines/recovery.yaml`.
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

#[test]
fn study_bs_document_has_all_its_parts_and_lm_evals_files() {
    let Some(data) = std::env::var_os("QPIPE_TEST_DATA").map(PathBuf::from) else {
        #[expect(clippy::print_stdout, reason = "a skipped test says so")]
        {
            println!("skipped: QPIPE_TEST_DATA is not set");
        }
        return;
    };
    let env = TestEnv::new();
    let sources = [
        ("model", "hf/stories260K"),
        ("arc", "arc_easy"),
        ("hellaswag", "hellaswag"),
        ("ifeval", "ifeval"),
        ("mmlu", "mmlu"),
    ];
    let mut settings: Vec<String> =
        sources.iter().map(|(name, path)| format!("{name}={}", data.join(path).display())).collect();
    settings.push("limit=2".to_owned());
    // IFEval's replies are longer than this model's context.
    settings.push("tasks=[arc_easy,hellaswag,mmlu]".to_owned());
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    run(&env, "recovery.yaml", &settings);

    let report = fs::read_to_string(env.path("results/recovery/report.md")).unwrap();
    for part in [
        "# Accuracy recovery",
        "## Goal",
        "## Hardware",
        "## Base Model",
        "## Quantized Model",
        "## Quantization Scheme",
        "## Accuracy Results for Base Model",
        "## Accuracy Results for Compressed Model",
        "## Recovery of int8-dynamic",
        "## Observation",
    ] {
        assert!(report.contains(part), "{part} is missing");
    }
    // Both tables have all rows of the published ones but IFEval's; the arrows are those of lm-eval 0.4.11.
    let lines = |start: &str| report.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((lines("|  - "), lines("| - ")), (2 * 57, 2 * (4 + 4)));
    assert_eq!(lines("|mmlu "), 2 * 2);
    assert!(report.contains("|arc_easy                               |      1|none  |     0|acc     |↑  |"));
    for task in ["| arc_easy |", "| hellaswag |", "| mmlu |"] {
        assert_eq!(lines(task), 1, "{task}");
    }
    for instance in ["scores[base]", "scores[int8]"] {
        let folder = env.path("results/recovery/lm_eval").join(instance);
        let names: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 60, "59 tasks and the results");
        let results = names.iter().find(|name| name.starts_with("results_")).unwrap();
        let results: Value =
            serde_json::from_str(&fs::read_to_string(folder.join(results)).unwrap()).unwrap();
        assert_eq!(results["n-samples"]["mmlu_anatomy"]["effective"], 2);
        assert!(results["results"]["mmlu"]["acc_stderr,none"].is_number());
    }

    // Another choice of tasks asks none of them again.
    let samples = || {
        let folder = env.path("results/recovery/lm_eval/scores[int8]");
        fs::read(folder.join(file_like(&folder, "samples_mmlu_virology_"))).unwrap()
    };
    let before = samples();
    let fewer: Vec<&str> = settings
        .iter()
        .copied()
        .filter(|setting| !setting.starts_with("tasks="))
        .chain(["tasks=[mmlu,arc_easy]"])
        .collect();
    let events = run(&env, "recovery.yaml", &fewer);
    assert_eq!(ran(&events, "evaluate"), 2);
    let is_taken = |event: &&Value| {
        event["event"] == "log"
            && event["message"].as_str().is_some_and(|text| text.contains("earlier evaluation"))
    };
    assert_eq!(events.iter().filter(is_taken).count(), 2, "two models");
    assert_eq!(samples(), before);
}

/// The name of the file in `folder` that begins with `start`.
fn file_like(folder: &Path, start: &str) -> String {
    let mut names =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.find(|name| name.starts_with(start)).unwrap()
}
