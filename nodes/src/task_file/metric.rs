//! What a task file counts: its `metric_list`, under lm-eval's names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OutputType;
use crate::ParamError;

/// One entry of `metric_list`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Its name.
    pub metric: String,
    /// How questions come together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<String>,
    /// Whether more is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub higher_is_better: Option<bool>,
    /// `exact_match`: what these match is taken out of both texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regexes_to_ignore: Vec<String>,
    /// `exact_match`: upper and lower case are the same.
    #[serde(default)]
    pub ignore_case: bool,
    /// `exact_match`: punctuation does not count.
    #[serde(default)]
    pub ignore_punctuation: bool,
    /// `exact_match`: digits do not count.
    #[serde(default)]
    pub ignore_numbers: bool,
}

/// A metric that tasks of one kind may count.
struct Known {
    name: &'static str,
    /// How questions come together.
    together: &'static str,
    higher_is_better: bool,
    /// Whether it is counted where a file names none.
    by_default: bool,
}

const fn known(name: &'static str, together: &'static str) -> Known {
    Known { name, together, higher_is_better: true, by_default: true }
}

impl Known {
    const fn lower_is_better(self) -> Self {
        Self { higher_is_better: false, ..self }
    }

    const fn where_named(self) -> Self {
        Self { by_default: false, ..self }
    }
}

const OF_CHOICES: &[Known] = &[
    known("acc", "mean"),
    known("acc_norm", "mean"),
    known("acc_bytes", "mean").where_named(),
    known("f1", "f1").where_named(),
    known("mcc", "matthews_corrcoef").where_named(),
];
const OF_CONTINUATIONS: &[Known] =
    &[known("perplexity", "perplexity").lower_is_better(), known("acc", "mean")];
const OF_TEXTS: &[Known] = &[
    known("word_perplexity", "weighted_perplexity").lower_is_better(),
    known("byte_perplexity", "weighted_perplexity").lower_is_better(),
    known("bits_per_byte", "bits_per_byte").lower_is_better(),
];
const OF_REPLIES: &[Known] = &[
    known("exact_match", "mean"),
    known("bleu", "bleu").where_named(),
    known("chrf", "chrf").where_named(),
    known("chrf++", "chrf++").where_named(),
    known("ter", "ter").lower_is_better().where_named(),
];

/// The metrics that each kind of task may count.
fn known_to(output_type: OutputType) -> &'static [Known] {
    match output_type {
        OutputType::MultipleChoice => OF_CHOICES,
        OutputType::Loglikelihood => OF_CONTINUATIONS,
        OutputType::LoglikelihoodRolling => OF_TEXTS,
        OutputType::GenerateUntil => OF_REPLIES,
    }
}

/// What is counted where a file says nothing.
pub(super) fn by_default(output_type: OutputType) -> Vec<String> {
    let known = known_to(output_type).iter().filter(|known| known.by_default);
    known.map(|known| known.name.to_owned()).collect()
}

/// Whether more of a metric is better, by its name; of one that no task file may name, too.
pub fn more_is_better(name: &str) -> bool {
    let all = [OF_CHOICES, OF_CONTINUATIONS, OF_TEXTS, OF_REPLIES];
    let found = all.into_iter().flatten().find(|known| known.name == name);
    found.is_none_or(|known| known.higher_is_better)
}

impl Metric {
    /// Whether it says how texts are compared.
    fn has_settings(&self) -> bool {
        !self.regexes_to_ignore.is_empty()
            || self.ignore_case
            || self.ignore_punctuation
            || self.ignore_numbers
    }

    /// What is wrong with it, the entry `index` of the list.
    fn check(&self, index: usize, output_type: OutputType) -> Vec<ParamError> {
        let known = known_to(output_type);
        let Some(found) = known.iter().find(|known| known.name == self.metric) else {
            let names: Vec<&str> = known.iter().map(|known| known.name).collect();
            let words = format!("`{}` is not counted for tasks of this kind", self.metric);
            return vec![at(index, "metric", words).help(format!("Known: {}.", names.join(", ")))];
        };
        let mut errors = Vec::new();
        if self.aggregation.as_deref().is_some_and(|given| given != found.together) {
            let words = format!("`{}` goes with `{}`", self.metric, found.together);
            errors.push(at(index, "aggregation", words));
        }
        if self.higher_is_better.is_some_and(|given| given != found.higher_is_better) {
            let words = format!("it is {} of `{}`", found.higher_is_better, self.metric);
            errors.push(at(index, "higher_is_better", words));
        }
        if self.has_settings() && self.metric != "exact_match" {
            errors.push(at(index, "metric", format!("`{}` has no settings", self.metric)));
        }
        errors
    }
}

/// What is wrong with the `key` of the entry `index`.
fn at(index: usize, key: &str, words: String) -> ParamError {
    let mut error = ParamError::value("metric_list", words);
    error.path.extend([index.to_string(), key.to_owned()]);
    error
}

/// What is wrong with a `metric_list`.
pub(super) fn check(list: &[Metric], output_type: OutputType) -> Vec<ParamError> {
    let mut errors = Vec::new();
    if list.is_empty() {
        errors.push(ParamError::value("metric_list", "names no metric"));
    }
    for (index, metric) in list.iter().enumerate() {
        errors.extend(metric.check(index, output_type));
        if list[..index].iter().any(|earlier| earlier.metric == metric.metric) {
            errors.push(at(index, "metric", format!("`{}` stands there twice", metric.metric)));
        }
    }
    errors
}
