//! What lm-eval calls its files, and where it puts them.

use std::path::{Path, PathBuf};

use jiff::civil::DateTime;

/// `2026-11-22T03-14-57.921301`, as it stands in the names of a run's files. Whole seconds have no fraction.
pub fn time(local: DateTime) -> String {
    let seconds = local.strftime("%Y-%m-%dT%H-%M-%S").to_string();
    match local.subsec_nanosecond() / 1_000 {
        0 => seconds,
        microseconds => format!("{seconds}.{microseconds:06}"),
    }
}

/// A model's name as a folder: each run of characters that some system forbids is `__`.
pub fn sanitized_model_name(name: &str) -> String {
    let mut folder = String::new();
    let mut in_run = false;
    for character in name.chars() {
        let is_forbidden = "\"<>:/|\\?*[]".contains(character);
        match (is_forbidden, in_run) {
            (true, true) => {}
            (true, false) => folder.push_str("__"),
            (false, _) => folder.push(character),
        }
        in_run = is_forbidden;
    }
    folder
}

/// `results_TIME.json`.
pub fn results(time: &str) -> String {
    format!("results_{time}.json")
}

/// `samples_TASK_TIME.jsonl`.
pub fn samples(task: &str, time: &str) -> String {
    format!("samples_{task}_{time}.jsonl")
}

/// Where the results go if lm-eval is told `output`: into the model's folder below it or, if it names a `.json` file,
/// beside that, the time added to its name.
pub fn results_path(output: &Path, model_name: &str, time: &str) -> PathBuf {
    match json_stem(output) {
        Some(stem) => output.with_file_name(format!("{stem}_{time}.json")),
        None => output.join(sanitized_model_name(model_name)).join(results(time)),
    }
}

/// Where the samples of `task` go: into the folder of the results.
pub fn samples_path(output: &Path, model_name: &str, task: &str, time: &str) -> PathBuf {
    results_path(output, model_name, time).with_file_name(samples(task, time))
}

fn json_stem(output: &Path) -> Option<&str> {
    output.extension().is_some_and(|extension| extension == "json").then(|| output.file_stem()?.to_str())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_microseconds_or_no_fraction() {
        let whole = jiff::civil::date(2026, 11, 22).at(3, 14, 5, 0);
        assert_eq!(time(whole), "2026-11-22T03-14-05");
        let part = jiff::civil::date(2026, 11, 22).at(3, 14, 57, 921_301_999);
        assert_eq!(time(part), "2026-11-22T03-14-57.921301");
        let small = jiff::civil::date(2026, 1, 2).at(0, 0, 0, 42_000);
        assert_eq!(time(small), "2026-01-02T00-00-00.000042");
    }

    #[test]
    fn runs_of_forbidden_characters_become_two_underscores() {
        assert_eq!(sanitized_model_name("org/model"), "org__model");
        assert_eq!(sanitized_model_name("/data//a:b[c]?"), "__data__a__b__c__");
        assert_eq!(sanitized_model_name("a_b-c.d"), "a_b-c.d");
    }

    #[test]
    fn a_json_file_as_output_gets_the_time_added() {
        let name = |path: PathBuf| path.to_str().expect("a plain name").to_owned();
        assert_eq!(name(results_path(Path::new("out"), "a/b", "T")), "out/a__b/results_T.json");
        assert_eq!(
            name(samples_path(Path::new("out"), "a/b", "arc_easy", "T")),
            "out/a__b/samples_arc_easy_T.jsonl"
        );
        assert_eq!(name(results_path(Path::new("out/run.v1.json"), "a/b", "T")), "out/run.v1_T.json");
        assert_eq!(name(samples_path(Path::new("out/run.json"), "a", "t", "T")), "out/samples_t_T.jsonl");
    }
}
