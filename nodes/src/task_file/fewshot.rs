//! How a task file says which examples there are, and how they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// How examples are chosen and written. What it does not say of their form is as for questions.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FewshotConfig {
    /// `default` (at random) or `first_n`.
    #[serde(default)]
    pub sampler: Sampler,
    /// The split that they are taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The examples themselves, where no split is named for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Vec<Map<String, Value>>>,
    /// Passed over, as lm-eval does.
    #[serde(default, skip_serializing)]
    pub fewshot_indices: Option<Vec<u64>>,
    /// The question of an example: a field's name, or a Jinja template.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub doc_to_text: Value,
    /// The answer of an example: a field's name, a Jinja template, a number or a list.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub doc_to_target: Value,
    /// The choices of an example: a list, a field's name or a Jinja template.
    #[serde(default, deserialize_with = "in_order", skip_serializing_if = "Value::is_null")]
    pub doc_to_choice: Value,
    /// Begins the answer of an example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gen_prefix: Option<String>,
    /// Stands between examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewshot_delimiter: Option<String>,
    /// Stands between the question and the answer of an example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_delimiter: Option<String>,
}

/// How examples are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// At random.
    #[default]
    Default,
    /// The first of the split.
    FirstN,
}

/// A mapping's values as a list: the order of choices counts, and that of a mapping's keys is in no key of the cache.
fn in_order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Object(choices) => choices.into_iter().map(|(_, choice)| choice).collect(),
        choices => choices,
    })
}
