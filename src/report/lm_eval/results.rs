//! The figures of one evaluation: what the tables and the files are made from.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Number, Value};

use super::python;

/// Tasks and groups by name. A name stands for one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// What was measured.
    #[serde(default)]
    pub tasks: BTreeMap<String, TaskResults>,
    /// What tasks were gathered under.
    #[serde(default)]
    pub groups: BTreeMap<String, GroupResults>,
}

/// One task's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskResults {
    /// The name that is shown.
    pub alias: String,
    /// As the task states it.
    #[serde(default)]
    pub version: Option<Version>,
    /// Solved examples in the prompt.
    #[serde(default)]
    pub n_shot: Option<u32>,
    /// Documents of the task.
    pub n_original: u64,
    /// Documents that were asked.
    pub n_effective: u64,
    /// In the order of the file; tables sort them. Name and filter together occur once.
    pub metrics: Vec<Metric>,
}

/// One figure of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Without a comma, which divides name and filter in the file.
    pub name: String,
    /// What was done with the answers before they were compared; `none` for nothing.
    pub filter: String,
    /// The figure.
    #[serde(with = "qpipe_nodes::figure")]
    pub value: f64,
    /// Its standard error; none is printed as `N/A`.
    #[serde(default, with = "qpipe_nodes::figure::optional")]
    pub stderr: Option<f64>,
    /// Which way is better, if the task says so.
    #[serde(default)]
    pub higher_is_better: Option<bool>,
}

/// A group of tasks and of other groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupResults {
    /// The name that is shown.
    pub alias: String,
    /// As the group states it.
    #[serde(default)]
    pub version: Option<Version>,
    /// Names of tasks and groups, in the order of their sums.
    pub children: Vec<String>,
    /// What [`Results::aggregate_some`] makes of the tasks' figures. Empty for a group that only gathers.
    #[serde(default)]
    pub metrics: Vec<GroupMetric>,
}

/// One figure of a group. Which way is better is known from its tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupMetric {
    /// The tasks' metric.
    pub name: String,
    /// Its filter.
    pub filter: String,
    /// The mean over all documents, or over the tasks.
    #[serde(with = "qpipe_nodes::figure")]
    pub value: f64,
    /// Its standard error; none is printed as `N/A`.
    #[serde(default, with = "qpipe_nodes::figure::optional")]
    pub stderr: Option<f64>,
    /// Documents of the tasks that have this metric.
    pub n: u64,
}

/// A version as it was given: `1.0`, `2` or `"Yaml"`.
#[derive(Clone, Debug, PartialEq)]
pub enum Version {
    /// Whole or not: `1` and `1.0` differ in the file.
    Number(Number),
    /// Any text.
    Text(String),
}

impl Version {
    /// As a file's `metadata` has it; what has none is of no version, as lm-eval says it.
    pub(in crate::report) fn of(value: &Value) -> Self {
        match value {
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::Text(text.clone()),
            _ => Self::Text("N/A".to_owned()),
        }
    }

    /// As Python prints it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Number(number) if number.is_f64() => {
                number.as_f64().map_or_else(|| number.to_string(), python::repr)
            }
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VersionVisitor)
    }
}

struct VersionVisitor;

impl Visitor<'_> for VersionVisitor {
    type Value = Version;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a text")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Version, E> {
        Ok(Version::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Version, E> {
        Ok(Version::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Version, E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("a version is a finite number"))?;
        Ok(Version::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Version, E> {
        Ok(Version::Text(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_figures_keep_their_form_in_json() {
        let text = r#"{"tasks":{"t":{"alias":"t","version":1.0,"n_shot":5,"n_original":9,"n_effective":4,"metrics":[{"name":"acc","filter":"none","value":"NaN","stderr":null,"higher_is_better":true},{"name":"ppl","filter":"none","value":2.5,"stderr":"-Infinity","higher_is_better":false}]}},"groups":{"g":{"alias":"g","version":"Yaml","children":["t"],"metrics":[]},"h":{"alias":"h","version":2,"children":[],"metrics":[]}}}"#;
        let results: Results = serde_json::from_str(text).expect("valid results");
        assert!(results.tasks["t"].metrics[0].value.is_nan());
        assert_eq!(results.tasks["t"].metrics[1].stderr, Some(f64::NEG_INFINITY));
        assert_eq!(serde_json::to_string(&results).expect("results are JSON"), text);
    }

    #[test]
    fn a_misspelt_figure_is_refused() {
        let text = r#"{"name":"acc","filter":"none","value":"nan"}"#;
        let error = serde_json::from_str::<Metric>(text).expect_err("`nan` is no figure");
        assert!(error.to_string().contains("expected a number, \"NaN\""), "{error}");
    }
}
