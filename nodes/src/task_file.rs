//! A task of lm-evaluation-harness's own kind: what its YAML task files say, under their names.
//!
//! Files that need no Python are read as they are. `include`, groups and paths are settled by whoever reads the file; here
//! is one task.

mod fewshot;
mod metric;
mod step;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ParamError;
use crate::task_origin::Origins;

pub use fewshot::{FewshotConfig, Sampler};
pub use metric::{Metric, more_is_better};
pub use step::{FilterList, Step};

/// One task. Keys that only other programs read are known, and passed over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFile {
    /// Its name.
    pub task: String,
    /// What tables call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_alias: Option<String>,
    /// The group that it was named by; its data may stand under that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What the model does.
    #[serde(default)]
    pub output_type: OutputType,
    /// The part of the data that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_name: Option<String>,
    /// To learn from: first choice for examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_split: Option<String>,
    /// Asked where there is no test split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_split: Option<String>,
    /// Asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_split: Option<String>,
    /// For examples, before all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewshot_split: Option<String>,
    /// The question: a field's name, or a Jinja template.
    #[serde(default)]
    pub doc_to_text: Value,
    /// The answer: a field's name, a Jinja template, a number or a list.
    #[serde(default)]
    pub doc_to_target: Value,
    /// The choices: a list, a field's name or a Jinja template.
    #[serde(default)]
    pub doc_to_choice: Value,
    /// Stands before the examples.
    #[serde(default)]
    pub description: String,
    /// Stands between a question and its answer.
    #[serde(default = "one_space")]
    pub target_delimiter: String,
    /// Stands between examples.
    #[serde(default = "blank_line")]
    pub fewshot_delimiter: String,
    /// How examples are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewshot_config: Option<FewshotConfig>,
    /// Examples before each question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_fewshot: Option<u32>,
    /// What is counted. Default: lm-eval's, by `output_type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_list: Option<Vec<Metric>>,
    /// How the model writes: `until`, `max_gen_toks`, `do_sample`, `temperature`, `top_k`, `top_p`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_kwargs: Option<Map<String, Value>>,
    /// What is taken out of a reply before it is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_list: Option<Vec<FilterList>>,
    /// Begins the answer: a field's name, a Jinja template or a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gen_prefix: Option<String>,
    /// How many replies there are to each question; 1. What is scored is the same each time, and asked once.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub repeats: u32,
    /// `version` counts.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Where its rules stand. Filled in for the worker, and in no key.
    // No name of lm-eval's. What a file says there is replaced.
    #[serde(rename = "@origins", default, skip_serializing_if = "Origins::is_empty")]
    #[schemars(skip)]
    pub origins: Origins,
}

/// What a task file may say, but for [`PASSED_OVER`].
pub fn keys() -> Vec<String> {
    let schema = schemars::schema_for!(TaskFile);
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(|properties| properties.keys().cloned()).collect()
}

/// Keys of a task file that change no number here: where data comes from on the Hub, and features of other programs.
pub const PASSED_OVER: [&str; 6] = [
    "dataset_path",
    "dataset_kwargs",
    "tag",
    "should_decontaminate",
    "doc_to_decontamination_query",
    "unsafe_code",
];

/// What the model does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputType {
    /// Chooses the likeliest continuation.
    MultipleChoice,
    /// Foresees how a text goes on: `doc_to_target` as it is, with no delimiter before it.
    Loglikelihood,
    /// Foresees a text, all of it.
    LoglikelihoodRolling,
    /// Writes.
    #[default]
    GenerateUntil,
}

fn one_space() -> String {
    " ".to_owned()
}
fn blank_line() -> String {
    "\n\n".to_owned()
}
fn one() -> u32 {
    1
}
fn is_one(repeats: &u32) -> bool {
    *repeats == 1
}

/// Replies to a question at most: each is a prompt of its own, and all of them are in memory.
const MOST_REPEATS: u32 = 10_000;

/// How a model may be told to write.
const GENERATION_KEYS: [&str; 9] = [
    "until",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "max_completion_tokens",
];

impl TaskFile {
    /// What is wrong beyond types: what qpipe does not do, by its name.
    pub fn check(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        // It names files.
        let is_plain = |character: char| character.is_alphanumeric() || "_-.()".contains(character);
        if self.task.is_empty() || self.task.starts_with('.') || !self.task.chars().all(is_plain) {
            errors.push(
                ParamError::value("task", format!("`{}` is no name of a task", self.task))
                    .help("Use letters, digits, `_`, `-`, `.` and parentheses."),
            );
        }
        let chooses = self.output_type == OutputType::MultipleChoice;
        let writes = self.output_type == OutputType::GenerateUntil;
        for (key, is_given, fits) in [
            ("doc_to_choice", !self.doc_to_choice.is_null(), chooses || writes),
            ("filter_list", self.filter_list.is_some(), writes),
            ("generation_kwargs", self.generation_kwargs.is_some(), writes),
        ] {
            if is_given && !fits {
                errors.push(ParamError::value(key, "has no meaning for tasks of this kind"));
            }
        }
        if self.doc_to_text.is_null() && self.output_type != OutputType::LoglikelihoodRolling {
            errors.push(ParamError::missing("`doc_to_text` is missing"));
        }
        if self.repeats == 0 {
            errors.push(ParamError::value("repeats", "each question is asked at least once"));
        }
        if self.repeats > MOST_REPEATS {
            let message = format!("each question is asked {MOST_REPEATS} times at most");
            errors.push(ParamError::value("repeats", message));
        }
        for (index, list) in self.filter_list.iter().flatten().enumerate() {
            errors.extend(list.check(index, self.repeats));
        }
        if chooses && self.doc_to_choice.is_null() {
            errors.push(ParamError::missing("`doc_to_choice` is missing"));
        }
        if self.doc_to_target.is_null() {
            errors.push(ParamError::missing("`doc_to_target` is missing"));
        }
        if let Some(list) = &self.metric_list {
            errors.extend(metric::check(list, self.output_type));
        }
        for key in self.generation_kwargs.iter().flat_map(Map::keys) {
            if !GENERATION_KEYS.contains(&key.as_str()) {
                let mut error = ParamError::value("generation_kwargs", format!("`{key}` is not supported"))
                    .help(format!("Known: {}.", GENERATION_KEYS.join(", ")));
                error.path.push(key.clone());
                errors.push(error);
            }
        }
        errors
    }

    /// The names of what is counted.
    pub fn metric_names(&self) -> Vec<String> {
        match &self.metric_list {
            Some(list) => list.iter().map(|metric| metric.metric.clone()).collect(),
            None => metric::by_default(self.output_type),
        }
    }

    /// `metadata.version`; lm-eval has `Yaml` where there is none.
    pub fn version(&self) -> Value {
        self.metadata.get("version").cloned().unwrap_or_else(|| "Yaml".into())
    }
}

/// Tasks that are read from files, by name.
pub type TaskFiles = BTreeMap<String, TaskFile>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<TaskFile, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_lm_evals() {
        let task = read(json!({"task": "t", "doc_to_text": "q", "doc_to_target": "answer"})).expect("a task");
        assert_eq!(task.output_type, OutputType::GenerateUntil);
        assert_eq!((task.target_delimiter.as_str(), task.fewshot_delimiter.as_str()), (" ", "\n\n"));
        assert_eq!((task.metric_names(), task.version()), (vec!["exact_match".to_owned()], "Yaml".into()));
        assert!(task.check().is_empty());
        let again = read(serde_json::to_value(&task).expect("JSON")).expect("a task");
        assert_eq!(serde_json::to_value(&again).ok(), serde_json::to_value(&task).ok());
    }

    #[test]
    fn examples_have_a_form_of_their_own() {
        let read = |config: Value| {
            let file = json!({"task": "t", "doc_to_text": "q", "doc_to_target": "a", "gen_prefix": "So", "fewshot_config": config});
            read(file).expect("a task")
        };
        let task = read(json!({
            "sampler": "first_n", "samples": [{"q": "x", "a": "y"}], "doc_to_choice": {"b": "two", "a": "one"},
            "fewshot_indices": [1], "target_delimiter": "", "gen_prefix": "Thus",
        }));
        let config = task.fewshot_config.expect("examples");
        assert_eq!(config.doc_to_choice, json!(["two", "one"]));
        assert_eq!(config.samples.map(|samples| samples.len()), Some(1));
        assert_eq!(config.gen_prefix.as_deref(), Some("Thus"));
        // What older files say is written as before, so that its key stays.
        let written = serde_json::to_value(read(json!({"split": "dev"}))).expect("JSON");
        assert_eq!(written["fewshot_config"], json!({"sampler": "default", "split": "dev"}));
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        let refused = |changes: Value| {
            let mut value = json!({"task": "t", "output_type": "multiple_choice", "doc_to_text": "q", "doc_to_choice": ["a"], "doc_to_target": 0});
            for (key, change) in changes.as_object().into_iter().flatten() {
                value[key] = change.clone();
            }
            let errors = read(value).map(|task| task.check());
            errors
                .map(|errors| errors.iter().map(|error| error.message.clone()).collect::<Vec<_>>().join("; "))
        };
        assert_eq!(refused(json!({})), Ok(String::new()));
        assert_eq!(refused(json!({"repeats": 5})), Ok(String::new()));
        assert_eq!(refused(json!({"repeats": 0})), Ok("each question is asked at least once".to_owned()));
        assert_eq!(refused(json!({"repeats": 10_000})), Ok(String::new()));
        assert_eq!(
            refused(json!({"repeats": 10_001})),
            Ok("each question is asked 10000 times at most".to_owned())
        );
        assert_eq!(
            refused(
                json!({"metric_list": [{"metric": "f1"}, {"metric": "mcc", "aggregation": "matthews_corrcoef"}]})
            ),
            Ok(String::new())
        );
        assert_eq!(
            refused(json!({"metric_list": [{"metric": "bleu"}]})),
            Ok("`bleu` is not counted for tasks of this kind".to_owned())
        );
        assert_eq!(
            refused(json!({"metric_list": [{"metric": "acc", "aggregation": "median"}]})),
            Ok("`acc` goes with `mean`".to_owned())
        );
        assert_eq!(
            refused(
                json!({"output_type": "generate_until", "doc_to_choice": null, "generation_kwargs": {"num_beams": 4}})
            ),
            Ok("`num_beams` is not supported".to_owned())
        );
        for key in ["filter_list", "generation_kwargs"] {
            let value = if key == "filter_list" { json!([]) } else { json!({}) };
            assert_eq!(refused(json!({key: value})), Ok("has no meaning for tasks of this kind".to_owned()));
        }
        for name in ["", "../t", "a/b", ".t"] {
            assert_eq!(refused(json!({"task": name})), Ok(format!("`{name}` is no name of a task")));
        }
        assert_eq!(
            refused(json!({"metric_list": [{"metric": "acc", "ignore_case": true}, {"metric": "acc"}]})),
            Ok("`acc` has no settings; `acc` stands there twice".to_owned())
        );
        assert_eq!(
            refused(json!({"metric_list": [{"metric": "acc", "higher_is_better": false}]})),
            Ok("it is true of `acc`".to_owned())
        );
        assert!(refused(json!({"process_docs": "x"})).is_err_and(|error| error.contains("process_docs")));
        let filtered = |step: Value| {
            refused(
                json!({"output_type": "generate_until", "filter_list": [{"name": "x", "filter": [step]}]}),
            )
        };
        assert_eq!(filtered(json!({"function": "take_first_k", "k": 1})), Ok(String::new()));
        assert_eq!(
            filtered(json!({"function": "take_first_k", "k": 8})),
            Ok("takes 8 replies, and there is one reply to a question".to_owned())
        );
        assert!(
            filtered(json!({"function": "custom", "filter_fn": "x"}))
                .is_err_and(|error| error.contains("custom"))
        );
        assert!(
            refused(json!({"fewshot_config": {"process_docs": "x"}}))
                .is_err_and(|error| error.contains("process_docs"))
        );
    }
}
