//! Groups of lm-evaluation-harness's tasks, as its YAML files have them: what tables say of several tasks together.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskGroup {
    /// What tables call it, if not by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// `metadata.version`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub version: Value,
    /// Names of tasks and of other groups, in the file's order.
    pub children: Vec<String>,
    /// Its figures; none of a group that only gathers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<GroupFigure>,
}

/// One entry of `aggregate_metric_list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupFigure {
    /// The tasks' metric.
    pub metric: String,
    /// Of which filters; all that the tasks have where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "one_or_several")]
    pub filter_list: Option<Vec<String>>,
    /// How tasks come together.
    #[serde(default)]
    pub aggregation: Together,
    /// Whether a task weighs as much as it has questions; otherwise all weigh the same.
    #[serde(default = "yes")]
    pub weight_by_size: bool,
}

/// How tasks come together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Together {
    /// The mean.
    #[default]
    Mean,
}

fn yes() -> bool {
    true
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Several(Vec<String>),
    }
    Ok(Option::<Names>::deserialize(deserializer)?.map(|names| match names {
        Names::One(name) => vec![name],
        Names::Several(names) => names,
    }))
}

/// Groups that are read from files, by name.
pub type TaskGroups = BTreeMap<String, TaskGroup>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_lm_evals() {
        let read =
            |value: Value| serde_json::from_value::<GroupFigure>(value).map_err(|error| error.to_string());
        let figure = read(json!({"metric": "acc"})).expect("a figure");
        assert_eq!((figure.filter_list, figure.weight_by_size), (None, true));
        let figure =
            read(json!({"metric": "acc", "filter_list": "none", "weight_by_size": false})).expect("a figure");
        assert_eq!((figure.filter_list, figure.weight_by_size), (Some(vec!["none".to_owned()]), false));
        assert!(
            read(json!({"metric": "acc", "aggregation": "median"}))
                .is_err_and(|error| error.contains("mean"))
        );
    }
}
