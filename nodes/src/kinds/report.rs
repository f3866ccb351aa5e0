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
}

/// Compares evaluations and benchmarks and writes `results.json`, `report.md` and every question's scores.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The document that is written.
    #[serde(default)]
    pub document: Document,
    /// Its heading. Default: the pipeline's name.
    #[serde(default)]
    pub title: Option<String>,
}

impl Kind for Report {
    const NAME: &'static str = "report";
    const VERSION: u32 = 1;
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
