//! The content of a `results_*.json`, keys in the order of lm-eval 0.4.13.

use std::collections::BTreeMap;

use super::json::Json;
use super::results::{Results, TaskResults, Version};
use super::sample::sha256;
use super::table::{NO_GROUP_VERSION, TableVersion};
use super::{file_names, hierarchy, inherited, python};

/// The layout of the file.
const LAYOUT: TableVersion = TableVersion::V0_4_13;

/// What the file says of the run beside its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// How each task was set up.
    pub configs: BTreeMap<String, Json>,
    /// How the model was run.
    pub execution: Execution,
    /// The commit of the program, if it has one.
    pub git_hash: Option<String>,
    /// When the run began, in seconds since 1970.
    pub date: f64,
    /// A description of the machine.
    pub pretty_env_info: String,
    /// `N/A` where there is none.
    pub transformers_version: String,
    /// The version whose rules were followed.
    pub lm_eval_version: String,
    /// The commit of the folder above, if it has one.
    pub upper_git_hash: Option<String>,
    /// The tokenizer; a model without one has no such keys.
    pub tokenizer: Option<TokenizerInfo>,
    /// [`super::task_hash`] by task; empty if no samples are kept.
    pub task_hashes: BTreeMap<String, String>,
    /// The kind of model: `hf`.
    pub model_source: String,
    /// What the model is called.
    pub model_name: String,
    /// What the model was told before each prompt.
    pub system_instruction: Option<String>,
    /// Whether solved examples were turns of a conversation.
    pub fewshot_as_multiturn: bool,
    /// The template of a conversation, if one was used.
    pub chat_template: Option<String>,
    /// Wall time of the whole run.
    pub total_evaluation_seconds: f64,
}

/// The key `config`.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// The kind of model: `hf`.
    pub model: String,
    /// Its arguments: an object or a text.
    pub model_args: Json,
    /// What is known of the model.
    pub model_info: Option<ModelInfo>,
    /// A number or a text.
    pub batch_size: Json,
    /// Sizes that were found where none was given.
    pub batch_sizes: Vec<u64>,
    /// Where it was computed.
    pub device: Option<String>,
    /// The file of earlier answers.
    pub use_cache: Option<String>,
    /// Documents of a task that were asked; below 1 a share of them.
    pub limit: Option<f64>,
    /// Resamples for standard errors that have no formula.
    pub bootstrap_iters: u64,
    /// How texts were generated.
    pub gen_kwargs: Json,
    /// Of Python's generator.
    pub random_seed: Option<u64>,
    /// Of NumPy's.
    pub numpy_seed: Option<u64>,
    /// Of PyTorch's.
    pub torch_seed: Option<u64>,
    /// Of the choice of solved examples.
    pub fewshot_seed: Option<u64>,
}

/// What is known of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// How many weights it has.
    pub parameters: u64,
    /// Their type: `torch.float32`.
    pub dtype: String,
    /// Its revision on the hub.
    pub revision: String,
    /// Its commit there; empty for a local one.
    pub sha: String,
}

/// What is known of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerInfo {
    /// Fills short rows.
    pub pad: SpecialToken,
    /// Ends a text.
    pub eos: SpecialToken,
    /// Begins a text.
    pub bos: SpecialToken,
    /// The id that ends an answer.
    pub eot_token_id: Option<u64>,
    /// Tokens that the model can take.
    pub max_length: Option<u64>,
}

/// A token with a meaning of its own, if the tokenizer has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialToken {
    /// Its text.
    pub text: Option<String>,
    /// Its number.
    pub id: Option<u64>,
}

impl SpecialToken {
    fn to_json(&self) -> Json {
        let id = self.id.map_or("None".to_owned(), |id| id.to_string());
        Json::List(vec![self.text.clone().into(), id.into()])
    }
}

/// The file. lm-eval writes it indented ([`Json::to_pretty`]), without a line break at the end.
pub fn results_json(results: &Results, run: &Run) -> Json {
    let mut entries = figures(results, run);
    entries.extend(circumstances(results, run));
    Json::object(entries)
}

/// What lm-eval's evaluation itself returns.
fn figures(results: &Results, run: &Run) -> Vec<(&'static str, Json)> {
    let as_run = hierarchy::tasks_as_run(results);
    let parents_first = hierarchy::groups_parents_first(results);
    let tasks = as_run.iter().map(|name| (*name, task_json(name, &results.tasks[*name])));
    let children_first = hierarchy::groups_children_first(results);
    let groups: Vec<(&str, Json)> =
        children_first.into_iter().map(|name| (name, group_json(results, name))).collect();
    let with_figures: Vec<(&str, Json)> =
        groups.iter().filter(|(name, _)| !results.groups[*name].metrics.is_empty()).cloned().collect();
    let subtasks = parents_first.iter().map(|name| (*name, results.groups[*name].children.clone().into()));
    let configs = run.configs.iter().map(|(name, config)| (name.as_str(), config.clone()));
    let shots = inherited::n_shots(results, LAYOUT).into_iter();
    let directions = inherited::directions(results, LAYOUT).into_iter().map(|(name, directions)| {
        (name, Json::object(directions.into_iter().map(|(metric, higher)| (metric, higher.into()))))
    });
    let samples = as_run.iter().map(|name| {
        let task = &results.tasks[*name];
        let counts = [("original", task.n_original.into()), ("effective", task.n_effective.into())];
        (*name, Json::object(counts))
    });

    let mut entries = vec![("results", Json::object(tasks.chain(groups)))];
    if !with_figures.is_empty() {
        entries.push(("groups", Json::object(with_figures)));
    }
    entries.extend([
        ("group_subtasks", Json::object(subtasks)),
        ("configs", Json::object(configs)),
        ("versions", versions(results)),
        ("n-shot", Json::object(shots.map(|(name, shots)| (name, u64::from(shots).into())))),
        ("higher_is_better", Json::object(directions)),
        ("n-samples", Json::object(samples)),
    ]);
    entries
}

fn task_json(name: &str, task: &TaskResults) -> Json {
    let mut entries = vec![
        ("name".to_owned(), name.into()),
        ("alias".to_owned(), task.alias.as_str().into()),
        ("sample_len".to_owned(), task.n_effective.into()),
    ];
    for metric in &task.metrics {
        entries.extend(figure(&metric.name, &metric.filter, metric.value, metric.stderr));
    }
    Json::object(entries)
}

fn group_json(results: &Results, name: &str) -> Json {
    let group = &results.groups[name];
    let mut entries =
        vec![("alias".to_owned(), group.alias.as_str().into()), ("name".to_owned(), name.into())];
    if !group.metrics.is_empty() {
        let documents: u64 = hierarchy::leaves(results, name).iter().map(|(_, task)| task.n_effective).sum();
        entries.push(("sample_len".to_owned(), documents.into()));
        for metric in &group.metrics {
            entries.extend(figure(&metric.name, &metric.filter, metric.value, metric.stderr));
        }
        let counts = group
            .metrics
            .iter()
            .map(|metric| (format!("{},{}", metric.name, metric.filter), metric.n.into()));
        entries.push(("sample_count".to_owned(), Json::object(counts)));
    }
    Json::object(entries)
}

fn figure(metric: &str, filter: &str, value: f64, stderr: Option<f64>) -> [(String, Json); 2] {
    let stderr = stderr.map_or("N/A".into(), Json::from);
    [(format!("{metric},{filter}"), value.into()), (format!("{metric}_stderr,{filter}"), stderr)]
}

/// Sorted. A group's version is always a text.
fn versions(results: &Results) -> Json {
    let tasks = results.tasks.iter().filter_map(|(name, task)| {
        let version = match task.version.as_ref()? {
            Version::Number(number) => Json::from(number),
            Version::Text(text) => text.as_str().into(),
        };
        Some((name.as_str(), version))
    });
    let groups = results.groups.iter().map(|(name, group)| {
        let version = group.version.as_ref().map_or(NO_GROUP_VERSION.to_owned(), Version::text);
        (name.as_str(), version.into())
    });
    Json::object(tasks.chain(groups).collect::<BTreeMap<&str, Json>>())
}

/// What it adds for the file.
fn circumstances(results: &Results, run: &Run) -> Vec<(&'static str, Json)> {
    let hash = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(sha256);
    let as_run = hierarchy::tasks_as_run(results).into_iter();
    let hashes = as_run.filter_map(|name| Some((name, run.task_hashes.get(name)?.as_str().into())));

    let mut entries = vec![
        ("config", execution_json(&run.execution)),
        ("git_hash", run.git_hash.clone().into()),
        ("date", run.date.into()),
        ("pretty_env_info", run.pretty_env_info.as_str().into()),
        ("transformers_version", run.transformers_version.as_str().into()),
        ("lm_eval_version", run.lm_eval_version.as_str().into()),
        ("upper_git_hash", run.upper_git_hash.clone().into()),
    ];
    if let Some(tokenizer) = &run.tokenizer {
        entries.extend([
            ("tokenizer_pad_token", tokenizer.pad.to_json()),
            ("tokenizer_eos_token", tokenizer.eos.to_json()),
            ("tokenizer_bos_token", tokenizer.bos.to_json()),
            ("eot_token_id", tokenizer.eot_token_id.into()),
            ("max_length", tokenizer.max_length.into()),
        ]);
    }
    entries.extend([
        ("task_hashes", Json::object(hashes)),
        ("model_source", run.model_source.as_str().into()),
        ("model_name", run.model_name.as_str().into()),
        ("model_name_sanitized", file_names::sanitized_model_name(&run.model_name).into()),
        ("system_instruction", run.system_instruction.clone().into()),
        ("system_instruction_sha", hash(&run.system_instruction).into()),
        ("fewshot_as_multiturn", run.fewshot_as_multiturn.into()),
        ("chat_template", run.chat_template.clone().into()),
        ("chat_template_sha", hash(&run.chat_template).into()),
        ("total_evaluation_time_seconds", python::repr(run.total_evaluation_seconds).into()),
    ]);
    entries
}

fn execution_json(execution: &Execution) -> Json {
    let mut entries =
        vec![("model", execution.model.as_str().into()), ("model_args", execution.model_args.clone())];
    if let Some(info) = &execution.model_info {
        entries.extend([
            ("model_num_parameters", info.parameters.into()),
            ("model_dtype", info.dtype.as_str().into()),
            ("model_revision", info.revision.as_str().into()),
            ("model_sha", info.sha.as_str().into()),
        ]);
    }
    entries.extend([
        ("batch_size", execution.batch_size.clone()),
        ("batch_sizes", execution.batch_sizes.clone().into()),
        ("device", execution.device.clone().into()),
        ("use_cache", execution.use_cache.clone().into()),
        ("limit", execution.limit.into()),
        ("bootstrap_iters", execution.bootstrap_iters.into()),
        ("gen_kwargs", execution.gen_kwargs.clone()),
        ("random_seed", execution.random_seed.into()),
        ("numpy_seed", execution.numpy_seed.into()),
        ("torch_seed", execution.torch_seed.into()),
        ("fewshot_seed", execution.fewshot_seed.into()),
    ]);
    Json::object(entries)
}

#[cfg(test)]
#[path = "files_tests.rs"]
pub(super) mod tests;
