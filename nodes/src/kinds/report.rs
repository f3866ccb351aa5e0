//! `report`: which differences between the variants are real.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Arity, Artifact, Host, Kind, ParamError, Port, Sensitivity};

/// The document that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Document {
    /// One table, a row a model.
    #[default]
    Table,
    /// How much of a base model's accuracy on lm-eval's tasks its quantized versions keep.
    Recovery,
}

/// The version of lm-eval whose tables are printed. They differ in what stands in the rows of groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HarnessTable {
    /// With the arrows that published tables have.
    #[default]
    #[serde(rename = "lm-eval-0.4.11")]
    V0_4_11,
    /// Without an arrow at the top of a group of groups.
    #[serde(rename = "lm-eval-0.4.13")]
    V0_4_13,
}

/// Compares evaluations and benchmarks and writes `results.json`, `report.md` and every question's scores.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The document that is written.
    #[serde(default)]
    pub document: Document,
    /// Whose layout lm-eval's tables have.
    #[serde(default)]
    pub table: HarnessTable,
    /// Its heading. Default: the pipeline's name.
    #[serde(default)]
    pub title: Option<String>,
}

impl Kind for Report {
    const NAME: &'static str = "report";
    const VERSION: u32 = 6;
    const SUMMARY: &'static str = "Compares the variants and says which differences are real.";
    const PORTS: &'static [Port] = &[
        Port {
            name: "evaluations",
            accepts: Artifact::Evaluation,
            arity: Arity::Many,
            summary: "A row each.",
        },
        Port {
            name: "benchmarks",
            accepts: Artifact::Benchmark,
            arity: Arity::OptionalMany,
            summary: "Matched to the rows by model.",
        },
        Port {
            name: "baseline",
            accepts: Artifact::Model,
            arity: Arity::Optional,
            summary: "What every row is compared with; default: what it was made from.",
        },
    ];

    fn check(&self) -> Vec<ParamError> {
        Vec::new()
    }

    fn output(&self) -> Artifact {
        Artifact::Report
    }

    fn host(&self) -> Host {
        Host::Qpipe
    }

    fn sensitivity(&self) -> Sensitivity {
        Sensitivity::Portable
    }
}
