//! Tests of `files.rs`.

use std::path::PathBuf;

use serde_json::Number;

use super::super::results::{GroupMetric, GroupResults, Metric};
use super::*;

/// Takes the figures out of a results file.
pub(crate) fn read_results(file: &Json) -> Results {
    let mut results = Results::default();
    for (name, entry) in object(get(file, "results")) {
        let alias = text(get(entry, "alias"));
        let version = Some(match get(get(file, "versions"), name) {
            Json::Text(text) => Version::Text(text.clone()),
            Json::Float(number) => Version::Number(Number::from_f64(*number).expect("a finite version")),
            other => Version::Number(whole(other).into()),
        });
        let keys = object(entry).iter().filter_map(|(key, value)| Some((key.split_once(',')?, value)));
        let figures =
            keys.filter(|((metric, _), _)| !metric.ends_with("_stderr")).map(|((metric, filter), value)| {
                let stderr = match get(entry, &format!("{metric}_stderr,{filter}")) {
                    Json::Float(stderr) => Some(*stderr),
                    _ => None,
                };
                (metric.to_owned(), filter.to_owned(), float(value), stderr)
            });
        if let Some(children) = find(get(file, "group_subtasks"), name) {
            let count = |metric: &str, filter: &str| {
                whole(get(get(entry, "sample_count"), &format!("{metric},{filter}")))
            };
            let metrics = figures.map(|(metric, filter, value, stderr)| {
                let n = count(&metric, &filter);
                GroupMetric { name: metric, filter, value, stderr, n }
            });
            let metrics = metrics.collect();
            let children = list(children).iter().map(text).collect();
            results.groups.insert(name.clone(), GroupResults { alias, version, children, metrics });
            continue;
        }
        let higher = get(get(file, "higher_is_better"), name);
        let metrics = figures.map(|(metric, filter, value, stderr)| {
            let higher_is_better = match find(higher, &metric) {
                Some(Json::Bool(higher)) => Some(*higher),
                _ => None,
            };
            Metric { name: metric, filter, value, stderr, higher_is_better }
        });
        let metrics = metrics.collect();
        let counts = get(get(file, "n-samples"), name);
        let task = TaskResults {
            alias,
            version,
            n_shot: u32::try_from(whole(get(get(file, "n-shot"), name))).ok(),
            n_original: whole(get(counts, "original")),
            n_effective: whole(get(counts, "effective")),
            metrics,
        };
        results.tasks.insert(name.clone(), task);
    }
    results
}

/// Takes the rest out of a results file.
fn read_run(file: &Json) -> Run {
    let named = |key: &str| object(get(file, key)).iter().map(|(name, value)| (name.clone(), value.clone()));
    let config = get(file, "config");
    let token = |key: &str| {
        let [token, id] = list(get(file, key)) else { panic!("{key}") };
        SpecialToken { text: Some(text(token)), id: text(id).parse().ok() }
    };
    Run {
        configs: named("configs").collect(),
        execution: Execution {
            model: text(get(config, "model")),
            model_args: get(config, "model_args").clone(),
            model_info: Some(ModelInfo {
                parameters: whole(get(config, "model_num_parameters")),
                dtype: text(get(config, "model_dtype")),
                revision: text(get(config, "model_revision")),
                sha: text(get(config, "model_sha")),
            }),
            batch_size: get(config, "batch_size").clone(),
            batch_sizes: list(get(config, "batch_sizes")).iter().map(whole).collect(),
            device: optional(get(config, "device"), text),
            use_cache: optional(get(config, "use_cache"), text),
            limit: optional(get(config, "limit"), float),
            bootstrap_iters: whole(get(config, "bootstrap_iters")),
            gen_kwargs: get(config, "gen_kwargs").clone(),
            random_seed: optional(get(config, "random_seed"), whole),
            numpy_seed: optional(get(config, "numpy_seed"), whole),
            torch_seed: optional(get(config, "torch_seed"), whole),
            fewshot_seed: optional(get(config, "fewshot_seed"), whole),
        },
        git_hash: optional(get(file, "git_hash"), text),
        date: float(get(file, "date")),
        pretty_env_info: text(get(file, "pretty_env_info")),
        transformers_version: text(get(file, "transformers_version")),
        lm_eval_version: text(get(file, "lm_eval_version")),
        upper_git_hash: optional(get(file, "upper_git_hash"), text),
        tokenizer: Some(TokenizerInfo {
            pad: token("tokenizer_pad_token"),
            eos: token("tokenizer_eos_token"),
            bos: token("tokenizer_bos_token"),
            eot_token_id: optional(get(file, "eot_token_id"), whole),
            max_length: optional(get(file, "max_length"), whole),
        }),
        task_hashes: named("task_hashes").map(|(name, hash)| (name, text(&hash))).collect(),
        model_source: text(get(file, "model_source")),
        model_name: text(get(file, "model_name")),
        system_instruction: optional(get(file, "system_instruction"), text),
        fewshot_as_multiturn: *get(file, "fewshot_as_multiturn") == Json::Bool(true),
        chat_template: optional(get(file, "chat_template"), text),
        total_evaluation_seconds: text(get(file, "total_evaluation_time_seconds")).parse().expect("seconds"),
    }
}

fn object(json: &Json) -> &[(String, Json)] {
    let Json::Object(entries) = json else { panic!("{json:?}") };
    entries
}

fn find<'a>(json: &'a Json, key: &str) -> Option<&'a Json> {
    object(json).iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

pub(crate) fn get<'a>(json: &'a Json, key: &str) -> &'a Json {
    find(json, key).expect(key)
}

pub(crate) fn list(json: &Json) -> &[Json] {
    let Json::List(items) = json else { panic!("{json:?}") };
    items
}

pub(crate) fn text(json: &Json) -> String {
    let Json::Text(text) = json else { panic!("{json:?}") };
    text.clone()
}

fn whole(json: &Json) -> u64 {
    let Json::Integer(number) = json else { panic!("{json:?}") };
    u64::try_from(*number).expect("a count")
}

fn float(json: &Json) -> f64 {
    let Json::Float(number) = json else { panic!("{json:?}") };
    *number
}

fn optional<T>(json: &Json, read: impl Fn(&Json) -> T) -> Option<T> {
    (*json != Json::Null).then(|| read(json))
}

/// Two results files line for line, but for the folder that the model stood in, which was taken out of one of its lines.
#[test]
#[expect(clippy::print_stdout, reason = "says why it did nothing")]
fn published_results_files_are_written_again() {
    let Some(data) = std::env::var_os("QPIPE_TEST_DATA") else {
        println!("skipped: QPIPE_TEST_DATA is not set");
        return;
    };
    for run in ["out_mc_0shot", "out_mmlu_0shot"] {
        let folder = PathBuf::from(&data).join("golden_lm_eval").join(run);
        let mut files =
            std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let path =
            files.find(|path| path.extension().is_some_and(|kind| kind == "json")).expect("a results file");
        let published = std::fs::read_to_string(path).expect("readable results");
        let file: Json = serde_json::from_str(&published).expect("valid JSON");
        assert_eq!(file.to_pretty(), published);
        let written = results_json(&read_results(&file), &read_run(&file)).to_pretty();
        for (line, (ours, theirs)) in (1..).zip(written.lines().zip(published.lines())) {
            if !theirs.contains("model_name_sanitized") {
                assert_eq!(ours, theirs, "{run}, line {line}");
            }
        }
        assert_eq!(written.lines().count(), published.lines().count());
    }
}

#[test]
fn a_run_without_groups_or_tokenizer_lacks_their_keys() {
    let run = Run {
        configs: BTreeMap::new(),
        execution: Execution {
            model: "m".into(),
            model_args: Json::Null,
            model_info: None,
            batch_size: Json::Null,
            batch_sizes: Vec::new(),
            device: None,
            use_cache: None,
            limit: None,
            bootstrap_iters: 0,
            gen_kwargs: Json::Null,
            random_seed: None,
            numpy_seed: None,
            torch_seed: None,
            fewshot_seed: None,
        },
        git_hash: None,
        date: 1.5,
        pretty_env_info: String::new(),
        transformers_version: "N/A".into(),
        lm_eval_version: "0.4.13".into(),
        upper_git_hash: None,
        tokenizer: None,
        task_hashes: BTreeMap::new(),
        model_source: "m".into(),
        model_name: "a/b".into(),
        system_instruction: Some("Answer.".into()),
        fewshot_as_multiturn: false,
        chat_template: Some(String::new()),
        total_evaluation_seconds: 2.0,
    };
    let file = results_json(&Results::default(), &run);
    let keys: Vec<&str> = object(&file).iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys[..4], ["results", "group_subtasks", "configs", "versions"]);
    assert!(!keys.iter().any(|key| key.starts_with("tokenizer") || *key == "groups"));
    assert_eq!(text(get(&file, "model_name_sanitized")), "a__b");
    assert_eq!(text(get(&file, "system_instruction_sha")), sha256("Answer."));
    assert_eq!(*get(&file, "chat_template_sha"), Json::Null);
    assert_eq!(text(get(&file, "total_evaluation_time_seconds")), "2.0");
}
