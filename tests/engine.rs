//! The engine, with a worker that has no libtorch: what runs, what does not, and what happens when things break.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{STUDY, TestEnv, read_events, statuses, told, with_status};

const COMPUTED: [&str; 13] = [
    "adapter",
    "base",
    "heldout",
    "report",
    "scores[base]",
    "scores[small]",
    "scores[tuned]",
    "small",
    "speed[base]",
    "speed[small]",
    "speed[tuned]",
    "train",
    "tuned",
];

fn ran_study() -> TestEnv {
    let env = TestEnv::new();
    env.study();
    let (code, events) = env.run("study.yaml", &[]);
    assert_eq!(code, 0);
    assert_eq!(with_status(&events, "ran"), COMPUTED);
    env
}

#[test]
fn a_second_run_computes_nothing() {
    let env = ran_study();
    let before = env.actions().len();
    let (code, events) = env.run("study.yaml", &[]);
    assert_eq!(code, 0);
    assert_eq!(with_status(&events, "cached"), COMPUTED);
    assert_eq!(env.actions().len(), before);
}

#[test]
fn comments_names_order_and_place_are_in_no_key() {
    let env = ran_study();
    let mut lines: Vec<&str> = STUDY.lines().collect();
    let (head, nodes) = lines.split_at_mut(3);
    nodes.reverse();
    let text = format!("{}\n# a comment\n{}\n", head.join("\n"), nodes.join("\n"))
        .replace("heldout", "questions")
        .replace("data: questions.jsonl", "data: heldout.jsonl")
        .replace("name: study", "name: other");
    env.write(
        "moved/deeper/study.yaml",
        &text
            .replace("model: model", "model: ../model")
            .replace("data: train.j", "data: ../train.j")
            .replace("data: held", "data: ../held"),
    );
    for name in ["model", "train.jsonl", "heldout.jsonl"] {
        fs::rename(env.path(name), env.path("moved").join(name)).unwrap();
    }
    let (code, events) = env.run("moved/deeper/study.yaml", &[]);
    assert_eq!(code, 0);
    assert_eq!(with_status(&events, "cached").len(), COMPUTED.len(), "{:?}", statuses(&events));
    assert!(env.path("results/other/results.json").exists());
}

#[test]
fn a_changed_parameter_runs_its_node_and_what_depends_on_its_bytes() {
    let env = ran_study();
    env.write("study.yaml", &STUDY.replace("scheme: W4A16", "scheme: W4A16, group_size: 64"));
    let (_, events) = env.run("study.yaml", &[]);
    assert_eq!(with_status(&events, "ran"), ["report", "scores[small]", "small", "speed[small]"]);
    let reason = events.iter().find(|e| e["event"] == "node_started" && e["node"] == "small").unwrap();
    assert_eq!(reason["reason"], "`group_size` 128 -> 64");
}

#[test]
fn a_label_renders_the_report_and_nothing_else() {
    let env = ran_study();
    env.write("study.yaml", &STUDY.replace("label: Small", "label: Four bits"));
    let (_, events) = env.run("study.yaml", &[]);
    assert_eq!(with_status(&events, "ran"), ["report"]);
    let results = fs::read_to_string(env.path("results/study/results.json")).unwrap();
    assert!(results.contains("\"Four bits\""));
}

#[test]
fn another_layout_of_lm_evals_tables_renders_the_report() {
    let env = ran_study();
    let with_table =
        |version: &str| STUDY.replace("{ kind: report,", &format!("{{ kind: report, table: {version},"));
    env.write("study.yaml", &with_table("lm-eval-0.4.13"));
    assert_eq!(with_status(&env.run("study.yaml", &[]).1, "ran"), ["report"]);
    env.write("study.yaml", &with_table("lm-eval-0.4.11"));
    assert_eq!(with_status(&env.run("study.yaml", &[]).1, "cached"), COMPUTED, "the default");
}

#[test]
fn a_deleted_report_is_written_again_from_the_store() {
    let env = ran_study();
    let path = env.path("results/study/results.json");
    let before = fs::read(&path).unwrap();
    fs::remove_dir_all(env.path("results")).unwrap();
    let (_, events) = env.run("study.yaml", &[]);
    assert_eq!(with_status(&events, "cached"), COMPUTED);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn rows_keep_the_files_order() {
    let env = ran_study();
    let text = fs::read_to_string(env.path("results/study/results.json")).unwrap();
    let places: Vec<usize> =
        ["\"Base\"", "\"Tuned\"", "\"Small\""].iter().map(|row| text.find(row).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(env.path("results/study/samples/scores[tuned].jsonl").exists());
}

#[test]
fn a_row_holds_all_benchmarks_of_its_model_in_the_files_order() {
    let env = ran_study();
    let more = "  batched: { kind: benchmark, for_each: [base, tuned], model: \"${item}\", data: heldout, topic: things, protocol: batched }\n";
    let with = |list: &str| STUDY.replace("benchmarks: speed", &format!("benchmarks: {list}")) + more;
    env.write("study.yaml", &with("[speed, batched]"));
    assert_eq!(
        with_status(&env.run("study.yaml", &[]).1, "ran"),
        ["batched[base]", "batched[tuned]", "report"]
    );
    let protocols = |row: &str| -> (String, Vec<String>) {
        let text = fs::read_to_string(env.path("results/study/results.json")).unwrap();
        let row = serde_json::from_str::<serde_json::Value>(&text).unwrap()[row].clone();
        let all = row["benchmarks"].as_array().unwrap();
        let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        (word(&row["protocol"]), all.iter().map(|it| word(&it["protocol"])).collect())
    };
    let of = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    assert_eq!(protocols("Tuned"), ("sequential".to_owned(), of(&["sequential", "batched"])));
    assert_eq!(protocols("Small"), ("sequential".to_owned(), of(&["sequential"])));
    let document = fs::read_to_string(env.path("results/study/report.md")).unwrap();
    assert!(document.contains("\n| Tuned | batched | cpu |"), "{document}");

    env.write("study.yaml", &with("[batched, speed]"));
    assert_eq!(with_status(&env.run("study.yaml", &[]).1, "ran"), ["report"]);
    assert_eq!(protocols("Tuned"), ("batched".to_owned(), of(&["batched", "sequential"])));
}

#[test]
fn a_variable_that_means_nothing_is_refused_at_once() {
    let env = TestEnv::new();
    env.study();
    let commands: [&[&str]; 5] = [
        &["doctor"],
        &["doctor", "--kernels"],
        &["plan", "study.yaml"],
        &["run", "study.yaml"],
        &["explain", "base", "study.yaml"],
    ];
    for (variable, value, words) in [
        ("QPIPE_CPU", "foo", "error: QPIPE_CPU is `foo`, expected one of portable, avx2, avx512, "),
        ("QPIPE_CPU", "avx512vnni", "Did you mean `avx512-vnni`?"),
        ("QPIPE_KERNELS", "", "error: QPIPE_KERNELS is ``, expected reference"),
        ("QPIPE_DEVICE", "gpu", "error: QPIPE_DEVICE is `gpu`, expected one of cpu, cuda"),
    ] {
        for command in commands {
            let output = env.command().env(variable, value).args(command).output().unwrap();
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(5), "{command:?} {out}{err}");
            assert!(err.contains(words) && out.is_empty(), "{command:?} {out}{err}");
        }
    }
    assert!(env.actions().is_empty());
}

/// The worker dies, talks nonsense, exits, or refuses: the node fails, the rest of the run goes on.
#[test]
fn a_failed_node_stops_only_what_depends_on_it() {
    for (seed, words, class) in [
        (1001, "SIGABRT", "surroundings"),
        (1002, "no event", "surroundings"),
        (1004, "train.jsonl:3", "user"),
        (1005, "exited with code 3", "surroundings"),
        (1006, "not finite", "deterministic"),
        (1007, "SIGABRT", "resources"),
        (1008, "changed while it was read", "surroundings"),
    ] {
        let env = TestEnv::new();
        env.study();
        env.write("study.yaml", &STUDY.replace("steps: 3", &format!("steps: 3, seed: {seed}")));
        let (code, events) = env.run("study.yaml", &[]);
        assert!(code == 4 || code == 5, "{code}");
        assert_eq!(with_status(&events, "failed"), ["adapter"]);
        assert_eq!(with_status(&events, "ran"), ["base", "heldout", "scores[base]", "speed[base]", "train"]);
        let failure = events.iter().find(|e| e["status"] == "failed").unwrap();
        assert!(failure["reason"].as_str().unwrap().contains(words), "{failure}");
        assert_eq!(failure["class"], class);
        if seed == 1005 {
            assert_eq!(failure["log"][0], "cannot go on");
        }
    }
}

#[test]
fn a_failure_that_would_come_again_is_said_and_not_tried_again() {
    let env = TestEnv::new();
    env.study();
    env.write("study.yaml", &STUDY.replace("steps: 3", "steps: 3, seed: 1006"));
    let (code, _) = env.run("study.yaml", &[]);
    assert_eq!(code, 4);
    let tried = env.actions().len();

    let (_, plan, _) = env.qpipe(&["plan", "study.yaml"]);
    assert!(plan.contains("failed before: the loss is not finite at step 2"), "{plan}");
    let (code, events) = env.run("study.yaml", &[]);
    assert_eq!(code, 4);
    let failure = events.iter().find(|e| e["status"] == "failed").unwrap();
    assert_eq!(
        (failure["node"].as_str(), failure["class"].as_str()),
        (Some("adapter"), Some("deterministic"))
    );
    assert!(failure["help"].as_str().unwrap().contains("--force adapter"), "{failure}");
    assert_eq!(env.actions().len(), tried, "no worker was asked");

    let (code, _) = env.run("study.yaml", &["--force", "adapter"]);
    assert_eq!(code, 4);
    assert_eq!(env.actions().len(), tried + 1, "tried again");

    env.write("study.yaml", STUDY);
    assert_eq!(env.run("study.yaml", &[]).0, 0, "another key");
}

#[test]
fn answers_of_rows_that_are_gone_are_removed() {
    let env = ran_study();
    env.write("study.yaml", &STUDY.replace("for_each: [base, tuned, small]", "for_each: [base, tuned]"));
    env.write("results/study/samples/notes.txt", "mine");
    assert_eq!(env.run("study.yaml", &[]).0, 0);
    let mut samples: Vec<String> = fs::read_dir(env.path("results/study/samples"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    samples.sort();
    assert_eq!(samples, ["notes.txt", "scores[base].jsonl", "scores[tuned].jsonl"]);
}

#[test]
fn a_worker_that_does_not_start_fails_its_nodes_with_what_it_said() {
    use std::os::unix::fs::PermissionsExt;
    let env = TestEnv::new();
    env.study();
    let worker = env
        .write("worker", "#!/bin/sh\necho libtorch_cpu.so: cannot open shared object file >&2\nexit 127\n");
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let output = env.command().env("QPIPE_WORKER", &worker).args(["run", "study.yaml"]).output().unwrap();
    let (code, _, err) = told(output);
    assert_eq!(code, 5);
    assert!(err.contains("exited with code 127") && err.contains("libtorch_cpu.so: cannot open"), "{err}");
}

#[test]
fn an_interrupted_run_ends_cleanly_and_goes_on_later() {
    let (env, mut child) = slow_run_at_work();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let seen = read_events(&env.path("events.jsonl"));
    assert!(with_status(&seen, "skipped").contains(&"adapter".to_owned()), "{:?}", statuses(&seen));

    let started = Instant::now();
    let (code, seen) = env.run("study.yaml", &[]);
    assert_eq!(code, 0);
    let first = seen.iter().find(|e| e["event"] == "progress" && e["node"] == "adapter").unwrap();
    assert!(first["done"].as_u64().unwrap() > 7, "finished units are not done again: {first}");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn qpipe_killed_outright_leaves_nothing_half_written() {
    let (env, mut child) = slow_run_at_work();
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, seen) = env.run("study.yaml", &[]);
    assert_eq!(code, 0, "no manual unlock");
    let first = seen.iter().find(|e| e["event"] == "progress" && e["node"] == "adapter").unwrap();
    assert!(first["done"].as_u64().unwrap() > 7, "{first}");
    let (code, out, err) = env.qpipe(&["cache", "verify"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn eight_processes_share_one_store() {
    let env = TestEnv::new();
    env.study();
    let children: Vec<_> = (0..8)
        .map(|i| {
            env.command()
                .args(["run", "study.yaml", "--results", &format!("results{i}")])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let (code, out, err) = told(child.wait_with_output().unwrap());
        assert_eq!(code, 0, "{out}{err}");
    }
    let mut actions: Vec<String> =
        env.actions().iter().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
    let count = actions.len();
    actions.sort();
    actions.dedup();
    assert_eq!(actions.len(), count, "each node was computed once");
    assert_eq!(count, 9);
}

#[test]
fn two_clones_share_a_store() {
    let env = ran_study();
    let clone = env.path("clone");
    fs::create_dir(&clone).unwrap();
    for name in ["model", "train.jsonl", "heldout.jsonl", "study.yaml"] {
        let copied =
            std::process::Command::new("cp").arg("-r").arg(env.path(name)).arg(clone.join(name)).status();
        assert!(copied.unwrap().success());
    }
    let before = env.actions().len();
    let output = env
        .command_in(&clone)
        .env("QPIPE_CACHE", env.path(".qpipe"))
        .args(["run", "study.yaml"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(env.actions().len(), before);
    assert!(clone.join("results/study/report.md").exists());
}

#[test]
fn a_flipped_byte_is_found_and_computed_again() {
    let env = ran_study();
    let victim = walk(&env.path(".qpipe/cas"))
        .into_iter()
        .find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("\"pred\"")))
        .unwrap();
    let mut bytes = fs::read(&victim).unwrap();
    bytes[10] ^= 1;
    let mut permissions = fs::metadata(&victim).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of the test's own")]
    permissions.set_readonly(false);
    fs::set_permissions(&victim, permissions).unwrap();
    fs::write(&victim, bytes).unwrap();
    let (code, out, _) = env.qpipe(&["cache", "verify"]);
    assert_eq!(code, 5);
    assert!(out.contains("; set aside as ") && out.contains("/cas/corrupt/"), "{out}");
    let (code, events) = env.run("study.yaml", &[]);
    assert_eq!(code, 0);
    // The answers, and the report that may have been made of the corrupt ones.
    assert_eq!(with_status(&events, "ran").len(), 2, "{:?}", statuses(&events));
    assert_eq!(env.qpipe(&["cache", "verify"]).0, 0);
}

#[test]
fn independent_nodes_run_side_by_side() {
    let env = TestEnv::new();
    env.study();
    let nodes: String = (0..2)
        .map(|i| format!("  t{i}: {{ kind: sft, model: base, data: train, lora: {{ rank: {} }}, steps: 3, seed: 1003 }}\n", i + 1))
        .collect();
    let head: String = STUDY.lines().take(5).map(|line| format!("{line}\n")).collect();
    env.write("two.yaml", &format!("{head}{nodes}"));
    let (code, events) = env.run("two.yaml", &["--jobs", "2"]);
    assert_eq!(code, 0);
    let second = events.iter().position(|e| e["event"] == "node_started" && e["node"] == "t1").unwrap();
    let first_end = events.iter().position(|e| e["event"] == "node_finished" && e["node"] == "t0").unwrap();
    assert!(second < first_end, "t1 starts before t0 ends");
}

#[test]
fn a_node_that_asks_for_a_card_does_not_run_without_one() {
    let env = ran_study();
    let text = STUDY.replace("kind: evaluate,", "kind: evaluate, resources: { device: cuda },");
    env.write("study.yaml", &text);
    let (code, events) = env.run("study.yaml", &[]);
    assert_eq!(code, 5);
    assert_eq!(with_status(&events, "failed"), ["scores[base]", "scores[small]", "scores[tuned]"]);
    let failure = events.iter().find(|e| e["status"] == "failed").unwrap();
    assert!(failure["reason"].as_str().unwrap().contains("QPIPE_DEVICE=cpu"), "{failure}");
    let (code, out, err) = env.qpipe(&["doctor"]);
    assert!(!env.path("gpu.json").exists(), "{code} {out}{err}");
}

#[test]
fn only_and_force_choose_what_runs() {
    let env = TestEnv::new();
    env.study();
    let (code, events) = env.run("study.yaml", &["--only", "tuned"]);
    assert_eq!(code, 0);
    assert_eq!(with_status(&events, "ran"), ["adapter", "base", "train", "tuned"]);
    let (_, events) = env.run("study.yaml", &["--only", "tuned", "--force", "adapter"]);
    assert_eq!(with_status(&events, "ran"), ["adapter"], "the same bytes stop the rerun");
    let (code, _, err) = env.qpipe(&["run", "study.yaml", "--only", "tuend"]);
    assert_eq!(code, 2);
    assert!(err.contains("`tuned`"), "{err}");
}

#[test]
fn plan_explain_graph_and_show_tell_what_there_is() {
    let env = TestEnv::new();
    env.study();
    let (_, plan, _) = env.qpipe(&["plan", "study.yaml"]);
    assert!(plan.contains("depends on `adapter`"), "{plan}");
    env.run("study.yaml", &[]);
    let (_, plan, _) = env.qpipe(&["plan", "study.yaml", "--json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&plan).unwrap();
    assert!(rows.iter().all(|row| row["state"] == "cached"));
    env.write("study.yaml", &STUDY.replace("steps: 3", "steps: 4"));
    let (_, why, _) = env.qpipe(&["explain", "adapter", "study.yaml"]);
    assert!(why.contains("`steps` 3 -> 4"), "{why}");
    for (format, sign) in [("mermaid", "flowchart"), ("dot", "digraph"), ("svg", "</svg>")] {
        let (code, drawing, _) = env.qpipe(&["graph", "study.yaml", "--format", format]);
        assert_eq!(code, 0);
        assert!(drawing.contains(sign) && drawing.contains("scores"), "{drawing}");
    }
    let (code, table, _) = env.qpipe(&["show"]);
    assert_eq!(code, 0);
    assert!(table.contains("Tuned"), "{table}");
}

#[test]
fn a_missing_source_is_shown_at_its_line() {
    let env = TestEnv::new();
    env.study();
    fs::remove_file(env.path("train.jsonl")).unwrap();
    fs::remove_dir_all(env.path("model")).unwrap();
    let (code, _, err) = env.qpipe(&["run", "study.yaml"]);
    assert_eq!(code, 3);
    assert!(err.contains("study.yaml:4:") && err.contains("study.yaml:5:"), "{err}");
    assert!(err.contains("train.jsonl` does not exist"), "{err}");
    let column = 1 + STUDY.lines().nth(4).unwrap().find("train.jsonl").unwrap();
    assert!(err.contains(&format!("study.yaml:5:{column}")), "at the path itself: {err}");
    assert!(err.contains("2 mistakes in the pipeline"), "{err}");
}

#[test]
fn a_random_model_of_the_pipelines_own_folder_takes_the_tokenizer_there() {
    let env = TestEnv::new();
    env.write("config.json", "{}");
    env.write("tokenizer.json", "{}");
    let with = "version: 1\nname: study\nnodes:\n  base: { kind: download, model: \"random:config.json\" }\n";
    env.write("study.yaml", with);
    let (code, planned, problems) = env.qpipe(&["plan", "study.yaml"]);
    assert_eq!(code, 0, "{problems}");
    env.write("study.yaml", &with.replace("random:", "random:./"));
    env.write(".qpipe/staging/inputs/model/tokenizer.json", "another");
    assert_eq!(env.qpipe(&["plan", "study.yaml"]).1, planned);
    fs::remove_file(env.path("tokenizer.json")).unwrap();
    let (code, without, problems) = env.qpipe(&["plan", "study.yaml"]);
    assert_eq!(code, 0, "{problems}");
    assert_ne!(without, planned, "it is in the key");
}

/// A run of the study whose `adapter` takes seconds, seven units into it.
fn slow_run_at_work() -> (TestEnv, std::process::Child) {
    let env = TestEnv::new();
    env.study();
    env.write("study.yaml", &STUDY.replace("steps: 3", "steps: 3, seed: 1003"));
    let events = env.path("events.jsonl");
    let child = env
        .command()
        .args(["run", "study.yaml", "--events", "events.jsonl"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| fs::read_to_string(&events).is_ok_and(|text| text.contains("\"done\":7,")));
    (env, child)
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}
