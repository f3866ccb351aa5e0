//! Pipeline files through `Pipeline::load`: what good ones become, and what is said about bad ones.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use miette::{GraphicalReportHandler, GraphicalTheme};
use qpipe::pipeline::{Binding, Pipeline, PipelineErrors, schema};

/// The folder of bad files, each beside what is shown for it.
const BAD_FILES: &str = "tests/pipeline_errors";

fn render(errors: &PipelineErrors) -> String {
    let handler =
        GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_width(100).without_cause_chain();
    let mut text = String::new();
    for diagnostic in errors.diagnostics() {
        if !text.is_empty() {
            text.push('\n');
        }
        handler.render_report(&mut text, diagnostic).unwrap();
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// The `# expect LINE:COLUMN …` and `# set NAME=VALUE` lines that a bad file begins with.
fn instructions(text: &str) -> (Vec<String>, Vec<(String, String)>) {
    let mut expected = Vec::new();
    let mut sets = Vec::new();
    for line in text.lines().take_while(|line| line.starts_with('#')) {
        if let Some(places) = line.strip_prefix("# expect ") {
            expected.extend(places.split_whitespace().map(str::to_owned));
        }
        if let Some((name, value)) = line.strip_prefix("# set ").and_then(|set| set.split_once('=')) {
            sets.push((name.to_owned(), value.to_owned()));
        }
    }
    (expected, sets)
}

#[test]
fn every_mistake_is_shown_at_its_place() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(BAD_FILES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 40, "{} files", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("pipeline_errors");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut wrong = Vec::new();
    for file in files {
        let (mut expected, sets) = instructions(&std::fs::read_to_string(&file).unwrap());
        let errors = match Pipeline::load(&file, &sets) {
            Ok(_) => panic!("{} has no mistakes", file.display()),
            Err(errors) => errors,
        };
        let mut found: Vec<String> = errors.iter().map(|error| error.place().unwrap_or_default()).collect();
        for place in &mut expected {
            *place = match place.split_once(".yaml:") {
                Some(_) => format!("{BAD_FILES}/{place}"),
                None if place.starts_with("--set:") => place.clone(),
                None => format!("{}:{place}", file.display()),
            };
        }
        expected.sort();
        found.sort();
        if expected != found {
            wrong.push(format!("{}\n  expected {expected:?}\n  found    {found:?}", file.display()));
        }
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        settings.bind(|| insta::assert_snapshot!(name, render(&errors)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A folder with the given files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn load(text: &str, sets: &[(&str, &str)]) -> Result<Pipeline, PipelineErrors> {
    let folder = folder(&[("study.yaml", text)]);
    let sets: Vec<(String, String)> = sets.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Pipeline::load(&folder.path().join("study.yaml"), &sets)
}

fn ids(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.instances.iter().map(|instance| instance.id.as_str()).collect()
}

fn index(pipeline: &Pipeline, id: &str) -> usize {
    pipeline.instances.iter().position(|instance| instance.id == id).unwrap()
}

/// The instances connected to a port, by id.
fn inputs<'p>(pipeline: &'p Pipeline, id: &str, port: &str) -> Vec<&'p str> {
    let binding = &pipeline.instances[index(pipeline, id)].inputs[port];
    binding.iter().map(|index| pipeline.instances[index].id.as_str()).collect()
}

const STUDY: &str = r#"
version: 1
name: study
params: { model: ../examples/tiny, groups: [32, 64], deep: { rate: 1e-3 } }
nodes:
  report: { kind: report, evaluations: [scores, extra], benchmarks: speed }
  base: { kind: download, model: "${params.model}", label: Base Model }
  train: { kind: download, data: train.jsonl }
  adapter: { kind: sft, model: base, data: train, lora: { rank: 4 }, steps: 3, learning_rate: "${params.deep.rate}" }
  tuned: { kind: sft-merge, model: base, adapter: adapter, label: SFT Model }
  w4:
    kind: quantize
    matrix: { g: "${params.groups}" }
    model: tuned
    method: rtn
    scheme: W4A16
    group_size: "${matrix.g}"
    label: "4 bit, groups of ${matrix.g}"
    resources: { threads: 2 }
  w8: { kind: quantize, for_each: [base, tuned], model: "${item}", method: rtn, scheme: W8A8, label: "${item} in 8 bit" }
  scores: { kind: evaluate, for_each: [base, tuned, w4], model: "${item}", data: train, topic: "a: b" }
  extra: { kind: evaluate, model: "w8[tuned]", data: { mcqa: train }, topic: t }
  speed: { kind: benchmark, for_each: [base, "w4[g=64]"], model: "${item}", data: train, topic: t }
"#;

#[test]
fn a_study_becomes_instances_with_typed_edges() {
    let pipeline = load(STUDY, &[]).unwrap();
    assert_eq!(pipeline.name, "study");
    assert_eq!(
        ids(&pipeline),
        [
            "report",
            "base",
            "train",
            "adapter",
            "tuned",
            "w4[g=32]",
            "w4[g=64]",
            "w8[base]",
            "w8[tuned]",
            "scores[base]",
            "scores[tuned]",
            "scores[w4[g=32]]",
            "scores[w4[g=64]]",
            "extra",
            "speed[base]",
            "speed[w4[g=64]]",
        ]
    );
    assert_eq!(inputs(&pipeline, "scores[w4[g=64]]", "model"), ["w4[g=64]"]);
    assert_eq!(
        inputs(&pipeline, "report", "evaluations"),
        ["scores[base]", "scores[tuned]", "scores[w4[g=32]]", "scores[w4[g=64]]", "extra"]
    );
    assert_eq!(inputs(&pipeline, "report", "benchmarks"), ["speed[base]", "speed[w4[g=64]]"]);
    assert!(!pipeline.instances[0].inputs.contains_key("baseline"));
    let train = index(&pipeline, "train");
    let map = Binding::Map([("mcqa".to_owned(), train)].into());
    assert_eq!(pipeline.instances[index(&pipeline, "extra")].inputs["data"], map);

    let w4 = &pipeline.instances[index(&pipeline, "w4[g=64]")];
    assert_eq!(w4.label.as_deref(), Some("4 bit, groups of 64"));
    assert_eq!(w4.parsed.params["group_size"], 64);
    assert_eq!(w4.resources.threads, Some(2));
    assert_eq!(w4.group, "w4");
    assert!(w4.location.to_string().ends_with("study.yaml:11:3"), "{}", w4.location);
    assert_eq!(pipeline.instances[index(&pipeline, "w8[base]")].label.as_deref(), Some("base in 8 bit"));
    assert_eq!(pipeline.instances[index(&pipeline, "adapter")].parsed.params["learning_rate"], 1e-3);
    assert_eq!(pipeline.instances[index(&pipeline, "base")].parsed.params["model"], "../examples/tiny");
}

#[test]
fn the_order_puts_inputs_first_and_is_otherwise_the_files() {
    let pipeline = load(STUDY, &[]).unwrap();
    let position = |index: usize| pipeline.order.iter().position(|other| *other == index).unwrap();
    for (index, instance) in pipeline.instances.iter().enumerate() {
        for input in instance.inputs.values().flat_map(Binding::iter) {
            assert!(position(input) < position(index));
        }
    }
    let names: Vec<&str> =
        pipeline.order.iter().map(|index| pipeline.instances[*index].id.as_str()).collect();
    assert_eq!(names[..5], ["base", "train", "adapter", "tuned", "w4[g=32]"]);
    assert_eq!(names.last(), Some(&"report"));
}

#[test]
fn set_replaces_parameters_and_keeps_their_type() {
    let pipeline =
        load(STUDY, &[("groups", "[64, 128]"), ("model", "hf://org/name@v1"), ("deep.rate", "5e-4")])
            .unwrap();
    assert!(ids(&pipeline).contains(&"w4[g=128]"));
    assert!(!ids(&pipeline).contains(&"w4[g=32]"));
    assert_eq!(pipeline.instances[index(&pipeline, "base")].parsed.params["model"], "hf://org/name@v1");
    assert_eq!(pipeline.instances[index(&pipeline, "adapter")].parsed.params["learning_rate"], 5e-4);
}

#[test]
fn a_matrix_gives_all_combinations_the_last_key_fastest() {
    let text = r#"
version: 1
nodes:
  a: { kind: download, model: a }
  b: { kind: download, model: b }
  q:
    kind: quantize
    for_each: [a, b]
    matrix: { z: [W8A8, W4A16], y: [1, true] }
    model: "${item}"
    method: rtn
    scheme: "${matrix.z}"
    label: "${matrix.y}"
"#;
    let pipeline = load(text, &[]).unwrap();
    assert_eq!(pipeline.name, "study", "without `name` the file's own");
    assert_eq!(
        ids(&pipeline)[2..],
        [
            "q[a,z=W8A8,y=1]",
            "q[a,z=W8A8,y=true]",
            "q[a,z=W4A16,y=1]",
            "q[a,z=W4A16,y=true]",
            "q[b,z=W8A8,y=1]",
            "q[b,z=W8A8,y=true]",
            "q[b,z=W4A16,y=1]",
            "q[b,z=W4A16,y=true]",
        ]
    );
    assert_eq!(pipeline.instances[3].label.as_deref(), Some("true"));
}

#[test]
fn for_each_may_take_a_list_of_parameters_and_other_groups() {
    let text = r#"
version: 1
params: { models: [a, b] }
nodes:
  r: { kind: report, evaluations: e }
  e: { kind: evaluate, for_each: [q, a], model: "${item}", data: d, topic: t }
  q: { kind: quantize, for_each: "${params.models}", model: "${item}", method: rtn, scheme: W8A8 }
  a: { kind: download, model: a }
  b: { kind: download, model: b }
  d: { kind: download, data: d }
"#;
    let pipeline = load(text, &[]).unwrap();
    assert_eq!(inputs(&pipeline, "r", "evaluations"), ["e[q[a]]", "e[q[b]]", "e[a]"]);
    let pipeline = load(text, &[("models", "b")]).unwrap();
    assert_eq!(inputs(&pipeline, "r", "evaluations"), ["e[q[b]]", "e[a]"]);
}

#[test]
fn anchors_aliases_and_merge_keys_work() {
    let text = r"
version: 1
nodes:
  a: { kind: download, model: a }
  q: &defaults { kind: quantize, model: a, method: rtn, scheme: W4A16, group_size: 32 }
  r: { <<: *defaults, group_size: 64, label: other }
";
    let pipeline = load(text, &[]).unwrap();
    let r = &pipeline.instances[index(&pipeline, "r")];
    assert_eq!((r.parsed.params["group_size"].as_u64(), r.label.as_deref()), (Some(64), Some("other")));
    assert_eq!(pipeline.instances[index(&pipeline, "q")].parsed.params["group_size"], 32);
}

#[test]
fn included_files_keep_their_own_folder() {
    let folder = folder(&[
        (
            "main.yaml",
            "version: 1\nname: x\ninclude: [parts/a.yaml, parts/b.yaml]\nnodes:\n  z: { kind: download, data: z }\n",
        ),
        (
            "parts/a.yaml",
            "include: sub/c.yaml\nparams: { m: tiny }\nnodes:\n  a: { kind: download, model: \"${params.m}\" }\n",
        ),
        (
            "parts/b.yaml",
            "version: 1\nname: alone\ninclude: sub/c.yaml\nnodes:\n  b: { kind: quantize, model: a, method: rtn, scheme: \"${params.s}\" }\n",
        ),
        ("parts/sub/c.yaml", "params: { s: W8A8 }\nnodes:\n  c: { kind: download, data: c }\n"),
    ]);
    let pipeline = Pipeline::load(&folder.path().join("main.yaml"), &[]).unwrap();
    assert_eq!(pipeline.name, "x");
    assert_eq!(ids(&pipeline), ["c", "a", "b", "z"], "what is included comes first, and once");
    let base = |id: &str| pipeline.instances[index(&pipeline, id)].base_dir.clone();
    assert_eq!(base("z"), folder.path());
    assert_eq!(base("a"), folder.path().join("parts"));
    assert_eq!(base("c"), folder.path().join("parts/sub"));
    assert!(pipeline.instances[0].location.to_string().ends_with("c.yaml:3:3"));
}

#[test]
fn what_is_no_text_is_said_in_one_line() {
    let folder = folder(&[("empty.yaml", "")]);
    std::fs::create_dir(folder.path().join("folder.yaml")).unwrap();
    std::fs::write(folder.path().join("latin.yaml"), b"version: 1\nname: caf\xe9\n").unwrap();
    std::fs::write(
        folder.path().join("mark.yaml"),
        "\u{feff}version: 2\nnodes: { a: { kind: download, model: a } }\n",
    )
    .unwrap();
    let message = |name: &str| {
        let errors =
            Pipeline::load(&folder.path().join(name), &[("x".to_owned(), "1".to_owned())]).unwrap_err();
        errors.to_string().replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(message("absent.yaml"), "`absent.yaml` does not exist");
    assert_eq!(message("folder.yaml"), "`folder.yaml` is not a file");
    assert_eq!(message("latin.yaml"), "`latin.yaml` is not UTF-8 text (line 2)");
    assert_eq!(message("empty.yaml"), "empty.yaml:1:1: the file is empty");
    assert!(message("mark.yaml").starts_with("mark.yaml:1:10: version 2"), "{}", message("mark.yaml"));
}

#[test]
fn lines_may_end_as_on_windows() {
    let errors = load("version: 1\r\nnodes:\r\n  a: { kind: download, modle: a }\r\n", &[]).unwrap_err();
    let text = render(&errors);
    assert!(text.contains("study.yaml:3:24]"), "{text}");
    assert!(!text.contains('\r'));
}

#[test]
fn what_is_found_out_later_is_shown_at_its_line() {
    let pipeline = load(STUDY, &[]).unwrap();
    let train = index(&pipeline, "train");
    let error = pipeline.diagnose(train, "`train.jsonl` does not exist", Some("Make it.".to_owned()));
    assert!(error.place().unwrap().ends_with("study.yaml:8:3"));
    let error = pipeline.diagnose_key(train, "data", "`train.jsonl` does not exist", None);
    assert!(error.place().unwrap().ends_with("study.yaml:8:34"));
}

/// Thousands of nodes are read in one pass: the time grows with the size of the file, not with its square.
#[test]
fn ten_thousand_nodes_are_read_quickly() {
    let mut text = "version: 1\nnodes:\n  base: { kind: download, model: m }\n".to_owned();
    for index in 0..10_000 {
        text.push_str(&format!("  q{index}: {{ kind: quantize, model: base, method: rtn, scheme: W8A8 }}\n"));
    }
    let started = std::time::Instant::now();
    let pipeline = load(&text, &[]).unwrap();
    assert_eq!(pipeline.order.len(), 10_001);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

#[test]
fn the_committed_schema_is_the_one_that_is_printed() {
    let path = Path::new("pipelines/qpipe.schema.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == schema::text(),
        "{} is not up to date: `qpipe schema > {}` renews it",
        path.display(),
        path.display()
    );
}

#[test]
fn shipped_pipelines_have_no_mistakes_and_name_the_schema() {
    let mut count = 0;
    for entry in std::fs::read_dir("pipelines").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            if let Err(errors) = Pipeline::load(&path, &[]) {
                panic!("{}", render(&errors));
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let first = text.lines().next().unwrap();
            assert_eq!(first, "# yaml-language-server: $schema=qpipe.schema.json", "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 0);
}
