//! `results.json`: the published study's layout, then what it leaves out.

use std::fmt;

use qpipe_nodes::results::BenchmarkResult;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ReportError;
use super::comparison::{Against, Difference, Row};
use super::names::Named;
use super::statistics::Interval;

/// Name of the file in `results/NAME/`.
pub const RESULTS_FILE: &str = "results.json";

/// The whole file: a map from row name to figures that keeps its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// (row name, figures), each name once.
    pub rows: Vec<(String, ResultRow)>,
}

/// One row, its keys in the order of the file. What a published file may lack is optional.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultRow {
    /// Right answers / questions.
    pub accuracy: f64,
    /// Mean wall time of one question in seconds.
    #[serde(default)]
    pub avg_time_s: Option<f64>,
    /// Tokens of prompt and candidate over all candidates, a second.
    #[serde(default)]
    pub tokens_per_s: Option<f64>,
    /// Mean over questions of the peak of allocated device memory, in MiB.
    #[serde(default, rename = "avg_peak_vram_MB")]
    pub avg_peak_vram_mb: Option<f64>,
    /// 1000 x accuracy / `avg_peak_vram_MB`.
    #[serde(default)]
    pub score_acc_over_vram: Option<f64>,
    /// Questions.
    #[serde(default)]
    pub n: Option<u64>,
    /// How the questions were run while time and memory were measured: `sequential` or `batched`.
    #[serde(default)]
    pub protocol: Option<String>,
    /// `cpu` or `cuda`.
    #[serde(default)]
    pub device: Option<String>,
    /// The paired difference to another row.
    #[serde(default)]
    pub vs_baseline: Option<VsBaseline>,
    /// All that was measured, the first of which is above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub benchmarks: Vec<BenchmarkResult>,
}

/// A row against its baseline, question by question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VsBaseline {
    /// The baseline's row.
    #[serde(default)]
    pub baseline: Option<String>,
    /// Accuracy less the baseline's.
    pub diff: f64,
    /// 95 % interval of `diff`.
    pub ci95: Interval,
    /// McNemar's exact two-sided p.
    pub mcnemar_p: f64,
    /// The share of questions answered otherwise.
    pub flips: f64,
    /// Mean KL divergence of the choice probabilities from the baseline's, in nats.
    pub kl: Option<f64>,
}

impl VsBaseline {
    fn new(baseline: &str, difference: &Difference) -> Self {
        Self {
            baseline: Some(baseline.to_owned()),
            diff: difference.diff,
            ci95: difference.ci95,
            mcnemar_p: difference.mcnemar_p,
            flips: difference.flips,
            kl: difference.kl,
        }
    }
}

impl Results {
    /// The rows of a comparison under their names.
    pub(super) fn new(named: &Named<'_>) -> Self {
        let rows = named.iter().map(|(name, row)| (name.to_owned(), result_row(named, row))).collect();
        Self { rows }
    }

    /// The text of the file.
    pub fn to_json(&self) -> Result<String, ReportError> {
        let mut text = serde_json::to_string_pretty(self).map_err(ReportError::Encode)?;
        text.push('\n');
        Ok(text)
    }
}

fn result_row(named: &Named<'_>, row: &Row) -> ResultRow {
    let benchmark = row.benchmark();
    let vs_baseline = match &row.against {
        Some(Against::Paired { baseline, difference }) => {
            Some(VsBaseline::new(named.name(*baseline), difference))
        }
        Some(Against::Unpaired { .. }) | None => None,
    };
    ResultRow {
        accuracy: row.accuracy,
        avg_time_s: benchmark.map(|figures| figures.avg_time_s),
        tokens_per_s: benchmark.map(|figures| figures.tokens_per_s),
        avg_peak_vram_mb: benchmark.map(|figures| figures.avg_peak_vram_mb),
        score_acc_over_vram: row.score_acc_over_vram(),
        n: Some(row.n),
        protocol: benchmark.map(|figures| super::describe::protocol(figures.protocol).to_owned()),
        device: Some(row.reported_device().to_owned()),
        vs_baseline,
        benchmarks: row.benchmarks.clone(),
    }
}

impl Serialize for Results {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.rows.len()))?;
        for (name, row) in &self.rows {
            map.serialize_entry(name, row)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Results {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowsVisitor)
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Results;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from row names to figures")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Results, A::Error> {
        let mut rows: Vec<(String, ResultRow)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if rows.iter().any(|(earlier, _)| *earlier == name) {
                return Err(A::Error::custom(format_args!("the row `{name}` stands there twice")));
            }
            let row = map.next_value()?;
            rows.push((name, row));
        }
        Ok(Results { rows })
    }
}
