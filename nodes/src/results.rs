//! The files inside artifacts that one node writes and others read: how a model was quantized, how it answered,
//! how fast it was. Written by the worker, read by the report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kinds::{Bos, Candidates, Protocol};

/// Name of the summary in an evaluation artifact. Beside it stands one `TASK.jsonl` a task.
pub const EVALUATION_FILE: &str = "evaluation.json";
/// Name of the one file in a benchmark artifact.
pub const BENCHMARK_FILE: &str = "benchmark.json";

/// Name of the file in a quantized checkpoint's folder that says how qpipe made it.
pub const QUANTIZATION_FILE: &str = "qpipe_quantization.json";

/// `qpipe_quantization.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// The word after `method:`.
    pub method: String,
    /// What decides the numbers: bits, groups, rules for rounding, scales and activations, alpha, damping, tokens.
    pub settings: BTreeMap<String, Value>,
    /// Linear layers that the method could not do and that were rounded to nearest instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,
}

/// One question of a four-choice task: a line of `mcqa.jsonl`, in the order of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question's line in the data, from 0 (blank lines not counted).
    pub doc_id: u64,
    /// Log-probabilities (natural logarithm) of the candidates, in the order of `choices`.
    pub scores: Vec<f64>,
    /// Index of the highest score, the first of equals.
    pub pred: u32,
    /// Index of the right choice.
    pub gold: u32,
    /// `pred == gold`.
    pub correct: bool,
}

/// `evaluation.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// By task.
    pub tasks: BTreeMap<String, TaskResult>,
    /// The type computed in: `float32`, `bfloat16`, `float16`.
    pub dtype: String,
    /// `cpu` or `cuda`.
    pub device: String,
    /// How the model's linear layers are stored and multiplied: `dense`, `W8A8`, `W4A16 g128`.
    pub scheme: String,
    /// How the model was quantized, if qpipe did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
}

/// Figures of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Questions scored.
    pub n: u64,
    /// Questions answered rightly.
    pub correct: u64,
    /// `correct / n`.
    pub accuracy: f64,
    /// What was scored as the answer.
    pub candidates: Candidates,
    /// The rule for the beginning-of-sequence token.
    pub bos: Bos,
    /// Tokens that went through the model, padding excluded.
    pub tokens: u64,
    /// What lm-eval's tables and files say, of its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<HarnessResult>,
}

/// A task's figures as lm-eval has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HarnessResult {
    /// What tables call the task, if not by its name.
    pub alias: Option<String>,
    /// The task's version.
    pub version: f64,
    /// Examples before each question.
    pub num_fewshot: u32,
    /// Questions that the data has, of which [`TaskResult::n`] were asked.
    pub of: u64,
    /// By metric, sorted by name.
    pub metrics: Vec<MetricResult>,
}

/// One metric of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricResult {
    /// `acc`, `acc_norm`.
    pub name: String,
    /// Its value over all questions.
    pub value: f64,
    /// Its standard error; `None`: there is none, as of a single question.
    pub stderr: Option<f64>,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// One question of a task of lm-eval's: a line of `TASK.jsonl`, in the order of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The question's row in the data, from 0.
    pub doc_id: u64,
    /// The row, as the task prepared it.
    pub doc: Value,
    /// What the task's target template makes of the row.
    pub target: String,
    /// What stands before the continuations: one for all, or one each.
    pub contexts: Vec<String>,
    /// What was scored.
    pub continuations: Vec<String>,
    /// Log-probabilities (natural logarithm) of the continuations.
    pub scores: Vec<f64>,
    /// Whether each continuation is the likeliest, token by token.
    pub greedy: Vec<bool>,
    /// Index of the choice that counts as the answer.
    pub pred: u32,
    /// Indices of the right choices.
    pub gold: Vec<u32>,
    /// The question's figures, by metric.
    pub metrics: BTreeMap<String, f64>,
}

/// `benchmark.json`: the published study's metrics and what they were measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkResult {
    /// How the questions were run.
    pub protocol: Protocol,
    /// `cpu` or `cuda`.
    pub device: String,
    /// The processor's or card's name.
    pub hardware: String,
    /// CPU threads.
    pub threads: u32,
    /// The type computed in.
    pub dtype: String,
    /// Questions measured.
    pub questions: u64,
    /// Mean wall time of one question in seconds, tokenizing included.
    pub avg_time_s: f64,
    /// Tokens of prompt + candidate over all candidates, a second.
    pub tokens_per_s: f64,
    /// Mean over questions of the peak of allocated device memory, reset before each, in MiB.
    #[serde(rename = "avg_peak_vram_MB")]
    pub avg_peak_vram_mb: f64,
    /// Bytes of the loaded model's tensors.
    pub weight_bytes: u64,
    /// Peak resident memory of the process in MiB (VmHWM), beside the allocator's figure.
    #[serde(rename = "process_peak_MB")]
    pub process_peak_mb: f64,
    /// Median, 10th and 90th percentile of a question's wall time in seconds.
    pub time_p50_s: f64,
    /// See `time_p50_s`.
    pub time_p10_s: f64,
    /// See `time_p50_s`.
    pub time_p90_s: f64,
    /// Load average of the machine when measuring began.
    pub load_before: f64,
}
