//! The report from artifacts on disk to the files in `results/NAME/`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe::report::{
    Against, Comparison, ReportError, Results, RowAnswers, RowInput, RowName, TaskFigures, compare, table,
    write,
};
use qpipe_nodes::kinds::{Bos, Candidates, Protocol};
use qpipe_nodes::results::{Answer, BenchmarkResult, Evaluation, HarnessResult, TaskResult};
use serde_json::{Value, json};
use tempfile::TempDir;

const QUESTIONS: usize = 40;

/// Answers that are right but for the questions in `wrong`.
fn answers(wrong: &[usize]) -> Vec<Answer> {
    (0..QUESTIONS)
        .map(|index| {
            let gold = (index % 4) as u32;
            let pred = if wrong.contains(&index) { (gold + 1) % 4 } else { gold };
            let scores = (0..4).map(|choice| if choice == pred { -0.5 } else { -2.0 }).collect();
            Answer { doc_id: index as u64, scores, pred, gold, correct: pred == gold }
        })
        .collect()
}

fn evaluation(folder: &Path, answers: &[Answer], scheme: &str, candidates: Candidates) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let lines: String = answers.iter().map(|answer| serde_json::to_string(answer).unwrap() + "\n").collect();
    fs::write(folder.join("mcqa.jsonl"), lines).unwrap();
    let correct = answers.iter().filter(|answer| answer.correct).count() as u64;
    let n = answers.len() as u64;
    let task = TaskResult {
        n,
        correct: Some(correct),
        accuracy: Some(correct as f64 / n as f64),
        candidates,
        bos: Bos::Never,
        tokens: 4000,
        divergence: None,
        harness: None,
    };
    let summary = Evaluation {
        tasks: [("mcqa".to_owned(), task)].into(),
        dtype: "float32".to_owned(),
        device: "cpu".to_owned(),
        scheme: scheme.to_owned(),
        quantization: None,
        groups: Default::default(),
    };
    fs::write(folder.join("evaluation.json"), serde_json::to_string(&summary).unwrap()).unwrap();
    folder.to_owned()
}

fn benchmark(folder: &Path, avg_time_s: f64, peak: f64) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let result = BenchmarkResult {
        protocol: Protocol::Sequential,
        device: "cpu".to_owned(),
        hardware: "Test CPU".to_owned(),
        threads: 2,
        dtype: "float32".to_owned(),
        questions: 50,
        avg_time_s,
        tokens_per_s: 400.0 / avg_time_s,
        avg_peak_vram_mb: peak,
        weight_bytes: (peak * 1e6) as u64,
        process_peak_mb: 2.0 * peak,
        time_p50_s: avg_time_s,
        time_p10_s: 0.9 * avg_time_s,
        time_p90_s: 1.1 * avg_time_s,
        load_before: 0.1,
        busy_before: None,
        busy_meanwhile: None,
        clock_mhz: None,
        energy: None,
        generation: Vec::new(),
        roofline: None,
    };
    fs::write(folder.join("benchmark.json"), serde_json::to_string(&result).unwrap()).unwrap();
    folder.to_owned()
}

/// Rewrites the benchmark in `folder`.
fn change(folder: &Path, change: impl Fn(&mut Value)) {
    let file = folder.join("benchmark.json");
    let mut result: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut result);
    fs::write(&file, result.to_string()).unwrap();
}

/// One batch.
fn generation() -> Value {
    json!([{
        "batch": 1, "prompt": 128, "new": 32, "time_to_first_token_s": 0.1, "prefill_tokens_per_s": 1280.0,
        "decode_tokens_per_s": 50.0, "step_p50_s": 0.02, "step_p90_s": 0.03, "step_p99_s": 0.04,
        "peak_MB": 300.0, "decode_of_bandwidth": 0.5, "prefill_of_matmul": 0.5,
    }])
}

struct Study {
    folder: TempDir,
    rows: Vec<RowInput>,
    names: Vec<RowName>,
    answers: Vec<RowAnswers>,
}

impl Study {
    /// A base, a variant that answers alike, one that is clearly worse, one that differs by chance; two of them
    /// measured.
    fn new() -> Self {
        let mut study = Self {
            folder: tempfile::tempdir().unwrap(),
            rows: Vec::new(),
            names: Vec::new(),
            answers: Vec::new(),
        };
        let few: Vec<usize> = (0..8).collect();
        let many: Vec<usize> = (0..30).collect();
        let others: Vec<usize> = (2..11).collect();
        study.add("Base Model", "base", &few, "dense", Some((0.1, 200.0)), None);
        study.add("W8A8", "w8a8", &few, "W8A8", Some((0.05, 100.0)), Some(0));
        study.add("broken", "broken", &many, "W4A16 g128", None, Some(0));
        study.add("W4", "w4", &others, "W4A16 g128", None, Some(0));
        study
    }

    fn add(
        &mut self,
        row: &str,
        model: &str,
        wrong: &[usize],
        scheme: &str,
        speed: Option<(f64, f64)>,
        baseline: Option<usize>,
    ) {
        let root = self.folder.path().join(model);
        let evaluation = evaluation(&root.join("evaluation"), &answers(wrong), scheme, Candidates::Letters);
        self.answers
            .push(RowAnswers { samples: Some(evaluation.join("mcqa.jsonl")), ..RowAnswers::default() });
        let benchmarks =
            speed.iter().map(|&(time, peak)| benchmark(&root.join("benchmark"), time, peak)).collect();
        self.rows.push(RowInput { evaluation, benchmarks, label: None, baseline });
        self.names.push(RowName { row: row.to_owned(), instance: format!("scores[{model}]") });
    }

    fn compare(&self) -> Comparison {
        compare(&self.rows, "").unwrap()
    }

    /// `report.md`, written.
    fn document(&self) -> String {
        write(&self.compare(), &self.names, &self.answers, &self.out()).unwrap();
        fs::read_to_string(self.out().join("report.md")).unwrap()
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("results/study")
    }
}

#[test]
fn results_have_the_published_layout_and_order() {
    let study = Study::new();
    write(&study.compare(), &study.names, &study.answers, &study.out()).unwrap();
    let text = fs::read_to_string(study.out().join("results.json")).unwrap();
    let keys: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("    \"") || line.starts_with("  \""))
        .map(|line| line.split('"').nth(1).unwrap())
        .collect();
    let figures = [
        "accuracy",
        "avg_time_s",
        "tokens_per_s",
        "avg_peak_vram_MB",
        "score_acc_over_vram",
        "n",
        "protocol",
        "device",
        "vs_baseline",
    ];
    let expected: Vec<&str> = ["Base Model", "W8A8", "broken", "W4"]
        .iter()
        .flat_map(|name| {
            let all = ["Base Model", "W8A8"].contains(name).then_some("benchmarks");
            std::iter::once(*name).chain(figures).chain(all)
        })
        .collect();
    assert_eq!(keys, expected);

    let value: Value = serde_json::from_str(&text).unwrap();
    let base = &value["Base Model"];
    assert_eq!(base["accuracy"], json!(0.8));
    assert_eq!(base["score_acc_over_vram"], json!(4.0));
    assert_eq!(
        (&base["n"], &base["protocol"], &base["device"]),
        (&json!(40), &json!("sequential"), &json!("cpu"))
    );
    assert!(base["vs_baseline"].is_null());
    let all = base["benchmarks"].as_array().unwrap();
    assert_eq!(all.len(), 1);
    let measured = ["time_p10_s", "time_p50_s", "time_p90_s", "weight_bytes", "load_before", "avg_time_s"];
    assert!(measured.iter().all(|key| all[0][*key].is_number()), "{base}");
    let broken = &value["broken"];
    for key in ["avg_time_s", "tokens_per_s", "avg_peak_vram_MB", "score_acc_over_vram", "protocol"] {
        assert!(broken[key].is_null(), "{key}");
    }
    let against = broken["vs_baseline"].as_object().unwrap();
    assert_eq!(against["baseline"], json!("Base Model"));
    assert_eq!(against["diff"], json!(-22.0 / 40.0));
    assert_eq!(against["flips"], json!(22.0 / 40.0));
    // scipy.stats.binomtest(0, 22, 0.5).pvalue
    assert!((against["mcnemar_p"].as_f64().unwrap() - 4.768_371_582_031_25e-7).abs() < 1e-15);
    assert_eq!(against["ci95"].as_array().unwrap().len(), 2);
    assert!(against["kl"].as_f64().unwrap() > 0.1);
    assert!(!against.contains_key("holm_p"));
}

#[test]
fn written_results_are_read_back() {
    let study = Study::new();
    write(&study.compare(), &study.names, &study.answers, &study.out()).unwrap();
    let results = Results::read(&study.out().join("results.json")).unwrap();
    let names: Vec<&str> = results.rows.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Base Model", "W8A8", "broken", "W4"]);
    assert_eq!(results.to_json().unwrap(), fs::read_to_string(study.out().join("results.json")).unwrap());
}

#[test]
fn document_says_what_is_real() {
    let study = Study::new();
    write(&study.compare(), &study.names, &study.answers, &study.out()).unwrap();
    let text = fs::read_to_string(study.out().join("report.md")).unwrap();
    insta::assert_snapshot!("document", text);
    insta::assert_snapshot!("terminal", table(&study.compare(), &study.names));
}

#[test]
fn energy_stands_in_the_document_where_a_device_told() {
    let study = Study::new();
    change(&study.rows[1].benchmarks[0], |result| {
        result["energy"] =
            json!({"source": "rapl", "joules_per_question": 12.345, "joules_per_token": 0.0309});
    });
    let text = study.document();
    assert!(text.contains("\n| W8A8 | RAPL | 12.3 | 0.0309 | – | – |\n"), "{text}");
    assert!(!text.contains("| Base Model | RAPL"));
}

#[test]
fn all_benchmarks_of_a_model_are_told() {
    let mut study = Study::new();
    for row in &mut study.rows[..2] {
        let first = &row.benchmarks[0];
        change(first, |result| result["generation"] = generation());
        let second = first.with_file_name("batched");
        fs::create_dir(&second).unwrap();
        fs::copy(first.join("benchmark.json"), second.join("benchmark.json")).unwrap();
        change(&second, |result| {
            result["protocol"] = json!("batched");
            result["tokens_per_s"] = json!(1e5);
            result["energy"] = json!({"source": "nvml", "joules_per_question": 1.0, "joules_per_token": 2.0});
        });
        row.benchmarks.push(second);
    }
    let text = study.document();
    for expected in [
        "Time and memory were measured in 2 ways:\n\n- protocol `batched`",
        "\n| Base Model | sequential | cpu | 50 | 100.0 ms | 90.0 ms | 100.0 ms | 110.0 ms | 4,000 | 200.0 | 190.7 |\n\
         | Base Model | batched | cpu | 50 | 100.0 ms | 90.0 ms | 100.0 ms | 110.0 ms | 100,000 | 200.0 | 190.7 |\n",
        "\n| W8A8 | batched | ",
        "- **W8A8** (sequential): 2.00 x the tokens/s of **Base Model**",
        "- **W8A8** (batched): 1.00 x the tokens/s of **Base Model**",
        "\n| W8A8 (sequential) | 1 | ",
        "\n| W8A8 (batched) | 1 | ",
        "\n| W8A8 (batched) | NVML | ",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let results = Results::read(&study.out().join("results.json")).unwrap();
    let row = &results.rows[0].1;
    assert_eq!(row.protocol.as_deref(), Some("sequential"));
    assert_eq!(row.tokens_per_s, Some(4000.0));
    let protocols: Vec<Protocol> = row.benchmarks.iter().map(|it| it.protocol).collect();
    assert_eq!(protocols, [Protocol::Sequential, Protocol::Batched]);
    let terminal = table(&study.compare(), &study.names);
    assert!(terminal.contains("4,000") && !terminal.contains("100,000"), "{terminal}");
}

#[test]
fn what_else_ran_and_what_a_device_does_at_best_name_their_models() {
    let study = Study::new();
    for (row, busy, bandwidth) in [(0, 0.5, 2e10), (1, 0.0, 1e10)] {
        change(&study.rows[row].benchmarks[0], |result| {
            result[if row == 0 { "busy_meanwhile" } else { "busy_before" }] = json!(busy);
            result["generation"] = generation();
            result["roofline"] =
                json!({"copy_bytes_per_s": bandwidth, "matmul_flops": 1e11, "matmul_dtype": "float32"});
        });
    }
    let text = study.document();
    for expected in [
        "Measured at best: 20.0 GB/s, 100 GFLOP/s in float32 (**Base Model**); 10.0 GB/s, 100 GFLOP/s in float32 (**W8A8**).",
        "Other programs ran while **Base Model** was measured: `qpipe run FILE --force NODE` measures again.",
        "\n| Base Model \\* | 1 |",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let terminal = table(&study.compare(), &study.names);
    assert!(terminal.contains("\nBase Model *"), "{terminal}");
    assert!(!terminal.contains("W8A8 *"), "{terminal}");
    let last = terminal.lines().last().unwrap();
    assert_eq!(last, "*: other programs ran meanwhile; `qpipe run FILE --force NODE` measures again.");
}

#[test]
fn only_what_is_missing_or_differs_is_written() {
    let study = Study::new();
    let (comparison, out) = (study.compare(), study.out());
    let first = write(&comparison, &study.names, &study.answers, &out).unwrap();
    assert_eq!(first.files.len(), 4 + 2);
    assert!(!write(&comparison, &study.names, &study.answers, &out).unwrap().changed());

    let sample = out.join("samples/scores[w4].jsonl");
    fs::remove_file(&sample).unwrap();
    assert_eq!(
        write(&comparison, &study.names, &study.answers, &out).unwrap().files,
        std::slice::from_ref(&sample)
    );
    assert_eq!(fs::read(&sample).unwrap(), fs::read(study.answers[3].samples.as_ref().unwrap()).unwrap());

    fs::write(out.join("results.json"), "{").unwrap();
    assert_eq!(
        write(&comparison, &study.names, &study.answers, &out).unwrap().files,
        [out.join("results.json")]
    );
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn files_of_an_earlier_evaluation_are_removed() {
    let mut study = Study::new();
    let mut comparison = study.compare();
    let figures = HarnessResult {
        alias: None,
        version: json!(1.0),
        num_fewshot: 0,
        of: 40,
        output_type: "multiple_choice".to_owned(),
        metrics: Vec::new(),
    };
    let task = TaskFigures { name: "arc_easy".to_owned(), n: 40, correct: Some(30), figures };
    comparison.rows[0].tasks = vec![task.clone()];
    comparison.rows[3].tasks = vec![task];
    let samples = study.folder.path().join("arc_easy.jsonl");
    fs::write(&samples, "").unwrap();
    let folder = study.out().join("lm_eval/scores[base]");
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for (time, day) in [(0.0, "1970-01-01T00-00-00"), (86400.5, "1970-01-02T00-00-00.500000")] {
        for answers in &mut study.answers {
            answers.harness.time = time;
            answers.harness.tasks.insert("arc_easy".to_owned(), samples.clone());
        }
        write(&comparison, &study.names, &study.answers, &study.out()).unwrap();
        fs::write(folder.join("notes.json"), "mine").unwrap();
        let expected =
            ["notes.json".to_owned(), format!("results_{day}.json"), format!("samples_arc_easy_{day}.jsonl")];
        assert_eq!(names(&folder), expected);
    }
    assert_eq!(names(&study.out().join("lm_eval")), ["scores[base]", "scores[w4]"]);
    comparison.rows[3].tasks.clear();
    write(&comparison, &study.names, &study.answers, &study.out()).unwrap();
    assert_eq!(names(&study.out().join("lm_eval")), ["scores[base]"]);
}

#[test]
fn title_stands_over_the_document() {
    let study = Study::new();
    let comparison = compare(&study.rows, "A title").unwrap();
    write(&comparison, &study.names, &study.answers, &study.out()).unwrap();
    assert!(fs::read_to_string(study.out().join("report.md")).unwrap().starts_with("# A title\n"));
}

#[test]
fn names_are_in_no_artifact() {
    let study = Study::new();
    let text = study.compare().to_json().unwrap();
    assert!(!text.contains("scores[") && !text.contains("Base Model"), "{text}");
    assert_eq!(text, study.compare().to_json().unwrap());
    let path = study.folder.path().join("report.json");
    fs::write(&path, &text).unwrap();
    assert_eq!(Comparison::read(&path).unwrap(), study.compare());
}

#[test]
fn reordering_keeps_who_is_compared_with_whom() {
    let study = Study::new();
    let turned = study.compare().reordered(&[3, 2, 1, 0]);
    assert_eq!(turned.rows[3], study.compare().rows[0]);
    assert_eq!(turned.rows[0].difference().unwrap().0, 3);
    assert_eq!(turned.reordered(&[3, 2, 1, 0]), study.compare());
    let alone = study.compare().reordered(&[2]);
    assert!(alone.rows[0].against.is_none());
}

#[test]
fn rows_of_one_name_do_not_hide_each_other() {
    let mut study = Study::new();
    study.names[1].row = "Base Model".to_owned();
    write(&study.compare(), &study.names, &study.answers, &study.out()).unwrap();
    let results = Results::read(&study.out().join("results.json")).unwrap();
    assert_eq!(results.rows[0].0, "Base Model (scores[base])");
    assert_eq!(results.rows[1].0, "Base Model (scores[w8a8])");
}

#[test]
fn terminal_table_is_aligned() {
    let study = Study::new();
    let text = table(&study.compare(), &study.names);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(lines[0].starts_with("model       accuracy %"), "{text}");
    assert!(lines[3].starts_with("broken           25.00"), "{text}");
    let end = |line: &str, text: &str| line.find(text).unwrap() + text.len();
    assert_eq!(end(lines[0], "right"), end(lines[1], "32/40"));
}

#[test]
fn other_questions_are_not_paired() {
    let mut study = Study::new();
    let folder = study.folder.path().to_owned();
    let fewer = evaluation(&folder.join("fewer"), &answers(&[])[..10], "dense", Candidates::Letters);
    let mut moved = answers(&[]);
    moved[7].gold = 0;
    moved[7].correct = moved[7].pred == 0;
    let moved = evaluation(&folder.join("moved"), &moved, "dense", Candidates::Letters);
    let otherwise = evaluation(&folder.join("text"), &answers(&[]), "dense", Candidates::Text);
    for (evaluation, reason) in [
        (fewer, "they answered 10 and 40 questions"),
        (moved, "they answered different questions"),
        (otherwise, "different texts were scored as their answers"),
    ] {
        study.rows[3].evaluation = evaluation;
        let comparison = study.compare();
        let expected = Against::Unpaired { baseline: 0, reason: reason.to_owned() };
        assert_eq!(comparison.rows[3].against, Some(expected));
        write(&comparison, &study.names, &study.answers, &study.out()).unwrap();
        let text = fs::read_to_string(study.out().join("report.md")).unwrap();
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn correction_counts_every_comparison() {
    let study = Study::new();
    let comparison = study.compare();
    let (_, broken) = comparison.rows[2].difference().unwrap();
    assert_eq!(broken.holm_p, 3.0 * broken.mcnemar_p);
    let (_, chance) = comparison.rows[3].difference().unwrap();
    assert_eq!((chance.lost, chance.won, chance.flipped), (3, 2, 5));
    assert!(!chance.is_real() && broken.is_real());
}

#[test]
fn artifacts_that_contradict_themselves_are_refused() {
    let study = Study::new();
    let answers_file = study.answers[0].samples.as_ref().unwrap();
    let text = fs::read_to_string(answers_file).unwrap();
    let refused = |text: &str| {
        fs::write(answers_file, text).unwrap();
        compare(&study.rows, "").unwrap_err()
    };

    let error = refused(&text.replacen("\"doc_id\":2,", "\"doc_id\":2 ", 1));
    assert!(matches!(&error, ReportError::Malformed { line: 3, column: 13, .. }), "{error}");
    let error = refused(&text.replacen("\"correct\":true", "\"correct\":false", 1));
    assert!(error.to_string().contains("`correct` contradicts"), "{error}");
    let error = refused(text.lines().next().unwrap());
    assert!(error.to_string().contains("evaluation.json says 32 of 40"), "{error}");
    fs::remove_file(answers_file).unwrap();
    let error = compare(&study.rows, "").unwrap_err();
    assert!(error.to_string().contains("mcqa.jsonl"), "{error}");
}

#[test]
fn empty_evaluation_has_no_infinities() {
    let mut study = Study::new();
    let nothing = evaluation(&study.folder.path().join("none"), &[], "dense", Candidates::Letters);
    // A summary of nothing: serde_json writes 0 / 0 as null, so the worker's is 0.
    let summary = fs::read_to_string(nothing.join("evaluation.json")).unwrap().replace("null", "0.0");
    fs::write(nothing.join("evaluation.json"), summary).unwrap();
    study.rows.iter_mut().for_each(|row| row.evaluation.clone_from(&nothing));
    let text = study.compare().to_json().unwrap();
    assert!(text.contains("\"accuracy\": 0.0") && !text.contains("\"kl\": null"), "{text}");
}

/// The published study's file and the broken form in which it was also published.
#[test]
fn published_results_are_read_and_broken_ones_located() {
    let Some(data) = std::env::var_os("QPIPE_TEST_DATA") else {
        println!("skipped: QPIPE_TEST_DATA is not set");
        return;
    };
    let published = PathBuf::from(data).join("published");
    let results = Results::read(&published.join("mcqa_results.json")).unwrap();
    assert_eq!(results.rows.len(), 11);
    assert_eq!(results.rows[0].0, "Base Model");
    for (name, row) in &results.rows {
        let score = 1000.0 * row.accuracy / row.avg_peak_vram_mb.unwrap();
        assert!((score - row.score_acc_over_vram.unwrap()).abs() < 1e-9, "{name}");
        let right = row.accuracy * 1962.0;
        assert!((right - right.round()).abs() < 1e-6, "{name}");
    }

    let malformed = published.join("mcqa_results.malformed.json");
    let text = fs::read_to_string(&malformed).unwrap();
    // The comma is missing at the end of line 71: the parser meets the next row's name.
    let error = Results::read(&malformed).unwrap_err();
    let ReportError::Malformed { line, column, message, .. } = &error else { panic!("{error}") };
    let place = text.lines().nth(line - 1).unwrap().get(column - 1..).unwrap();
    assert_eq!((*line, place.chars().next()), (72, Some('"')), "{error}");
    assert!(message.contains("expected `,`"), "{error}");
    assert!(error.to_string().contains("mcqa_results.malformed.json:72:3: "), "{error}");
}

#[test]
fn a_row_that_stands_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    fs::write(&path, "{\n  \"a\": {\"accuracy\": 1.0},\n  \"a\": {\"accuracy\": 0.5}\n}\n").unwrap();
    let error = Results::read(&path).unwrap_err();
    assert!(matches!(error, ReportError::Malformed { line: 3, .. }), "{error}");
}
