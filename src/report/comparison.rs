//! The report artifact: everything a report says, but for the names that the pipeline file gives things.

use std::path::Path;

use qpipe_nodes::kinds::{Bos, Candidates, Document};
use qpipe_nodes::results::{BenchmarkResult, Divergence, Quantization};
use qpipe_nodes::task_group::TaskGroups;
use serde::{Deserialize, Serialize};

use super::ReportError;
use super::lm_eval::TableVersion;
use super::statistics::Interval;
use super::tasks::{Recovered, TaskFigures};

/// Name of the one file in a report artifact.
pub const REPORT_FILE: &str = "report.json";

/// The threshold that Holm's adjusted p must stay below for a difference to be called real.
pub const SIGNIFICANCE: f64 = 0.05;

/// Rows and how they compare. Refers to rows by index, never by name: names are in no key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The heading; empty where the report node has none, and the pipeline's name stands in its place.
    pub title: String,
    /// The document that is written.
    #[serde(default)]
    pub document: Document,
    /// Whose layout lm-eval's tables have.
    #[serde(default)]
    pub table: TableVersion,
    /// In the order of the inputs.
    pub rows: Vec<Row>,
}

/// One model's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The model node's label.
    pub label: Option<String>,
    /// Questions answered.
    pub n: u64,
    /// Of these, rightly.
    pub correct: u64,
    /// `correct / n`, from 0 to 1.
    pub accuracy: f64,
    /// Wilson's 95 % interval of the accuracy.
    pub ci95: Interval,
    /// What was scored as the answer.
    pub candidates: Candidates,
    /// The rule for the beginning-of-sequence token.
    pub bos: Bos,
    /// The type the answers were computed in.
    pub dtype: String,
    /// Where they were computed: `cpu` or `cuda`.
    pub device: String,
    /// How the linear layers are stored and multiplied.
    pub scheme: String,
    /// How the model was quantized, if qpipe did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// How its predictions differ from those of the evaluation's reference, token by token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    /// lm-eval's tasks, sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskFigures>,
    /// Groups of these, as files of lm-eval's describe them.
    #[serde(default, skip_serializing_if = "TaskGroups::is_empty")]
    pub groups: TaskGroups,
    /// These against the baseline's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovered: Vec<Recovered>,
    /// Speed and memory, in the order of the report's list. The first is what a row has room for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub benchmarks: Vec<BenchmarkResult>,
    /// How it compares with its baseline.
    pub against: Option<Against>,
}

impl Row {
    /// The benchmark that fills the columns of the published study: the first.
    pub fn benchmark(&self) -> Option<&BenchmarkResult> {
        self.benchmarks.first()
    }

    /// 1000 x accuracy / peak memory in MiB, as the published study has it.
    pub fn score_acc_over_vram(&self) -> Option<f64> {
        let peak = self.benchmark()?.avg_peak_vram_mb;
        (peak > 0.0).then(|| 1000.0 * self.accuracy / peak)
    }

    /// The device that the row's speed is from, or else its answers.
    pub fn reported_device(&self) -> &str {
        self.benchmark().map_or(&self.device, |benchmark| &benchmark.device)
    }

    /// The paired difference and its baseline, where there is one.
    pub fn difference(&self) -> Option<(usize, &Difference)> {
        match self.against.as_ref()? {
            Against::Paired { baseline, difference } => Some((*baseline, difference)),
            Against::Unpaired { .. } => None,
        }
    }
}

/// How a row compares with its baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// Both answered the same questions, scored in the same way.
    Paired {
        /// Index of the baseline's row.
        baseline: usize,
        /// Question by question.
        difference: Difference,
    },
    /// They did not: nothing can be said question by question.
    Unpaired {
        /// Index of the baseline's row.
        baseline: usize,
        /// In what they differ.
        reason: String,
    },
}

/// A row against its baseline, question by question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Questions right in the baseline only.
    pub lost: u64,
    /// Questions right in this row only.
    pub won: u64,
    /// Accuracy less the baseline's, from -1 to 1.
    pub diff: f64,
    /// Tango's 95 % score interval of `diff`.
    pub ci95: Interval,
    /// McNemar's exact two-sided p.
    pub mcnemar_p: f64,
    /// The same after Holm's correction for all comparisons of the report.
    pub holm_p: f64,
    /// Questions to which another choice was given, rightly or not.
    pub flipped: u64,
    /// The share of these.
    pub flips: f64,
    /// Mean over questions of D(baseline || this row) between the softmaxes of the candidates' scores, in nats.
    /// `None` where nothing was scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
}

impl Against {
    /// The same with the baseline's index replaced.
    fn with_baseline(self, place: impl Fn(usize) -> Option<usize>) -> Option<Self> {
        Some(match self {
            Self::Paired { baseline, difference } => Self::Paired { baseline: place(baseline)?, difference },
            Self::Unpaired { baseline, reason } => Self::Unpaired { baseline: place(baseline)?, reason },
        })
    }
}

impl Difference {
    /// Whether chance is ruled out, at [`SIGNIFICANCE`] over the whole report.
    pub fn is_real(&self) -> bool {
        self.holm_p < SIGNIFICANCE
    }
}

impl Comparison {
    /// The same rows in another order: the row at `order[i]` becomes row `i`. Rows that `order` leaves out are
    /// dropped, and with them what was said against them.
    #[must_use]
    pub fn reordered(&self, order: &[usize]) -> Self {
        let place = |old: usize| order.iter().position(|&index| index == old);
        let rows = order
            .iter()
            .filter_map(|&index| self.rows.get(index))
            .map(|row| Row {
                against: row.against.clone().and_then(|against| against.with_baseline(place)),
                ..row.clone()
            })
            .collect();
        Self { title: self.title.clone(), rows, ..*self }
    }

    /// The text of [`REPORT_FILE`]: the same bytes for the same comparison.
    pub fn to_json(&self) -> Result<String, ReportError> {
        let mut text = serde_json::to_string_pretty(self).map_err(ReportError::Encode)?;
        text.push('\n');
        Ok(text)
    }

    /// Reads [`REPORT_FILE`] at `path`, which may be a blob of the cache.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let text = fs_err::read_to_string(path)?;
        serde_json::from_str(&text).map_err(|error| ReportError::malformed(path, 1, &error))
    }
}
