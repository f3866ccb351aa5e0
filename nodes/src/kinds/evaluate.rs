//! `evaluate`: how well a model answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Dtype;
use crate::limit::Limit;
use crate::task_file::TaskFiles;
use crate::task_group::TaskGroups;
use crate::tasks::{self, TASKS};
use crate::{Arity, Artifact, Kind, ParamError, Port};

/// What is scored as the answer to a four-choice question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Candidates {
    /// The prompt lists the choices as lines "A. …" to "D. …"; " A" to " D" are scored.
    #[default]
    Letters,
    /// The prompt does not list the choices; a space and the text of each choice is scored.
    Text,
}

/// Whether a beginning-of-sequence token stands before the prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bos {
    /// As the tokenizer does by itself.
    Tokenizer,
    /// Always.
    Always,
    /// Never: the published four-choice study's rule.
    #[default]
    Never,
}

/// Artifacts of earlier evaluations that asked some of the tasks, by the names of these: an input of a worker that no pipeline
/// binds.
pub const EARLIER: &str = "earlier";

fn default_tasks() -> Vec<String> {
    vec!["mcqa".to_owned()]
}
fn default_seed() -> u64 {
    1234
}

/// Scores a model on tasks and keeps every question's scores.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Names of tasks and groups of tasks, and paths of task files of lm-eval's (`.yaml`), relative to this file.
    #[serde(default = "default_tasks")]
    pub tasks: Vec<String>,
    /// What the files among `tasks` say, by the names that stand there in their place; filled in when they are read.
    #[serde(default, skip_serializing_if = "TaskFiles::is_empty")]
    #[schemars(skip)]
    pub task_files: TaskFiles,
    /// The groups that the files among `tasks` describe, by name; filled in when they are read.
    #[serde(default, skip_serializing_if = "TaskGroups::is_empty")]
    #[schemars(skip)]
    pub task_groups: TaskGroups,
    /// What is scored as the answer.
    #[serde(default)]
    pub candidates: Candidates,
    /// The subject named in the prompt's first line.
    #[serde(default)]
    pub topic: Option<String>,
    /// Only the first so many questions of each task, or, below 1, such a part of them, rounded up.
    #[serde(default)]
    pub limit: Option<Limit>,
    /// Examples before each question of lm-eval's tasks. Default: none, 5 of `gsm8k`; `ifeval` has none, as in lm-eval.
    #[serde(default)]
    pub num_fewshot: Option<u32>,
    /// Of the choice of examples, and of tokens that are drawn. Default: lm-eval's 1234.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Prompts of lm-eval's tasks are written as conversations in the model's own format, examples as turns.
    #[serde(default)]
    pub chat_template: bool,
    /// Whether a beginning-of-sequence token stands before the prompt. Default: never for `mcqa`, as the tokenizer does by
    /// itself for lm-eval's tasks.
    #[serde(default)]
    pub bos: Option<Bos>,
    /// Tokens a batch, padding counted. Results do not depend on it beyond rounding. Default: as many as are fast and fit into
    /// the free memory.
    #[serde(default)]
    pub batch_tokens: Option<u32>,
    /// The type the model computes in. Default: the checkpoint's.
    #[serde(default)]
    pub dtype: Option<Dtype>,
}

impl Kind for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 18;
    const SUMMARY: &'static str = "Scores a model on tasks and keeps every question's scores.";
    const PORTS: &'static [Port] = &[
        Port { name: "model", accepts: Artifact::Model, arity: Arity::One, summary: "The model to score." },
        Port {
            name: "data",
            accepts: Artifact::Data,
            arity: Arity::OneOrMap,
            summary: "The questions: a node, or a map from task to node.",
        },
        Port {
            name: "reference",
            accepts: Artifact::Model,
            arity: Arity::Optional,
            summary: "A model to compare with, token by token, wherever a prediction is scored.",
        },
    ];

    fn check(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        if self.tasks.is_empty() {
            errors.push(ParamError::value("tasks", "names no task"));
        }
        if !self.task_groups.is_empty() {
            errors.push(ParamError::value("task_groups", "files of groups are named in `tasks`"));
        }
        if !self.task_files.is_empty() {
            errors.push(ParamError::value("task_files", "task files are named in `tasks`"));
        }
        for (index, task) in self.tasks.iter().enumerate() {
            if tasks::is_file(task) {
                continue;
            }
            if tasks::leaves(task).is_none() {
                let names: Vec<&str> = TASKS.iter().map(|(name, _)| *name).collect();
                let mut error = ParamError::value("tasks", format!("unknown task `{task}`"))
                    .help(format!("Known tasks: {}; or the path of a task file (.yaml).", names.join(", ")));
                error.path.push(index.to_string());
                error.alternatives = names.into_iter().map(str::to_owned).collect();
                errors.push(error);
            } else if self.tasks[..index].contains(task) {
                errors.push(ParamError::value("tasks", format!("`{task}` stands there twice")));
            }
        }
        if self.batch_tokens == Some(0) {
            errors.push(ParamError::value("batch_tokens", "must be at least 1"));
        }
        if self.chat_template && self.tasks.iter().any(|task| task == "mcqa") {
            errors
                .push(ParamError::value("chat_template", "mcqa's prompts are the published study's: texts"));
        }
        if self.tasks.iter().any(|task| task == "mcqa") && self.topic.is_none() {
            errors.push(ParamError::missing("`topic` is missing: mcqa names it in the prompt's first line"));
        }
        errors
    }

    fn output(&self) -> Artifact {
        Artifact::Evaluation
    }
}
