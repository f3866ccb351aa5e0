//! The files inside artifacts that one node writes and others read: how a model was quantized, how it answered,
//! how fast it was. Written by the worker, read by the report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kinds::{Bos, Candidates, Protocol};
use crate::task_group::TaskGroups;

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
    /// Groups of the tasks, as files of lm-eval's describe them.
    #[serde(default, skip_serializing_if = "TaskGroups::is_empty")]
    pub groups: TaskGroups,
}

/// Figures of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Questions, or texts.
    pub n: u64,
    /// Questions answered rightly; `None` where nothing is right or wrong, as in texts that are only scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<u64>,
    /// `correct / n`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// What was scored as the answer.
    pub candidates: Candidates,
    /// The rule for the beginning-of-sequence token.
    pub bos: Bos,
    /// Tokens that went through the model, padding excluded.
    pub tokens: u64,
    /// How its predictions differ from those of the reference, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    /// What lm-eval's tables and files say, of its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<HarnessResult>,
}

/// How a model's predictions of the next token differ from a reference's, summed over the places that were scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Places.
    pub tokens: u64,
    /// D(reference || model) over the whole vocabulary, in nats, summed.
    pub kl: f64,
    /// Places where both have the same likeliest token.
    pub agreed: u64,
}

impl Divergence {
    /// Of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            kl: self.kl + other.kl,
            agreed: self.agreed + other.agreed,
        }
    }

    /// D(reference || model) a token, in nats.
    pub fn mean(&self) -> f64 {
        self.kl / self.tokens as f64
    }

    /// The share of places where both have the same likeliest token.
    pub fn agreement(&self) -> f64 {
        self.agreed as f64 / self.tokens as f64
    }
}

/// A task's figures as lm-eval has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HarnessResult {
    /// What tables call the task, if not by its name.
    pub alias: Option<String>,
    /// The task's version: a number or a text, as its file has it.
    pub version: Value,
    /// Examples before each question.
    pub num_fewshot: u32,
    /// Questions that the data has, of which [`TaskResult::n`] were asked.
    pub of: u64,
    /// `multiple_choice`, `loglikelihood_rolling` or `generate_until`.
    pub output_type: String,
    /// By metric, sorted by name and filter.
    pub metrics: Vec<MetricResult>,
}

/// What lm-eval calls the filter of a task that has none.
pub const NO_FILTER: &str = "none";

/// One metric of a task, under one filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricResult {
    /// `acc`, `acc_norm`.
    pub name: String,
    /// The filter that replies went through before they were judged; `none` for none.
    pub filter: String,
    /// Its value over all questions.
    #[serde(with = "crate::figure")]
    pub value: f64,
    /// Its standard error; `None`: there is none, as of a single question or of `inst_level_strict_acc`.
    #[serde(with = "crate::figure::optional")]
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
    /// What the model was given: one text for all continuations, or one each.
    pub contexts: Vec<String>,
    /// What the model wrote, where it was to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// What was scored: the continuations, or a text by itself, which then has no context and a score a window.
    pub continuations: Vec<String>,
    /// Log-probabilities (natural logarithm) of the continuations.
    pub scores: Vec<f64>,
    /// Whether each continuation is the likeliest, token by token.
    pub greedy: Vec<bool>,
    /// How often it counts as asked. Scores are the same each time and stand here once.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub repeats: u32,
    /// Index of the choice that counts as the answer; of a reply there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pred: Option<u32>,
    /// Indices of the right choices.
    pub gold: Vec<u32>,
    /// Whether it counts as answered rightly; of a text `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<bool>,
    /// The question's figures, filter by filter.
    pub filtered: Vec<Filtered>,
}

fn once() -> u32 {
    1
}

fn is_once(repeats: &u32) -> bool {
    *repeats == 1
}

/// What a model wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The text.
    pub text: String,
    /// The further replies to a question that is asked several times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
    /// How it was to write, in lm-eval's words: `until`, `do_sample`, `max_gen_toks`.
    pub arguments: Value,
}

/// A question's figures under one filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filtered {
    /// The filter's name; `none` for none.
    pub filter: String,
    /// What the filter left of the replies: a text, or a list of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Value>,
    /// By metric.
    pub metrics: BTreeMap<String, Figure>,
}

/// What a question adds to a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Figure {
    /// Right or not: 1 or 0.
    Flag(bool),
    /// A number; the metric is the mean over the questions.
    Number(f64),
    /// Several verdicts; the metric is the mean over those of all questions.
    Each(Vec<bool>),
    /// The right label and the chosen one; the metric is made of those of all questions.
    // Before what is read as two numbers as well.
    Labels([i64; 2]),
    /// A log-likelihood, and how many words or bytes it is divided among; the metric is made of the sums.
    Share([f64; 2]),
    /// The right text and the reply; the metric is made of those of all questions.
    Texts([String; 2]),
}

impl Filtered {
    /// Of a task without filters.
    pub fn unfiltered(metrics: BTreeMap<String, Figure>) -> Self {
        Self { filter: NO_FILTER.to_owned(), reply: None, metrics }
    }
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
    /// The part of all cores that other programs kept busy just before, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_before: Option<f64>,
    /// The part that they kept busy while it was measured, absent where this took too little time to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_meanwhile: Option<f64>,
    /// The mean clock of the cores just before, in MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_mhz: Option<f64>,
    /// What the device took, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// How fast it reads prompts and writes, if that was asked for: by batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generation: Vec<GenerationSpeed>,
    /// What the device does at best, measured with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roofline: Option<Roofline>,
}

/// Prompts that are read and continued together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationSpeed {
    /// How many.
    pub batch: u32,
    /// Tokens of each.
    pub prompt: u32,
    /// Tokens written to each.
    pub new: u32,
    /// Median time from the prompts to the first tokens in seconds.
    pub time_to_first_token_s: f64,
    /// Tokens of all prompts over that time.
    pub prefill_tokens_per_s: f64,
    /// Tokens of all rows over the median time of a step.
    pub decode_tokens_per_s: f64,
    /// Median, 90th and 99th percentile of the time of a step after the first, in seconds.
    pub step_p50_s: f64,
    /// See `step_p50_s`.
    pub step_p90_s: f64,
    /// See `step_p50_s`.
    pub step_p99_s: f64,
    /// Peak of allocated device memory in MiB, the weights included.
    #[serde(rename = "peak_MB")]
    pub peak_mb: f64,
    /// The bytes of the weights, read once a step, over the time of a step, as a part of the device's copy bandwidth.
    pub decode_of_bandwidth: f64,
    /// The products of linear layers with all prompts over the time to the first token, as a part of the device's rate.
    pub prefill_of_matmul: f64,
    /// What the device took to the first tokens, over the tokens of all prompts; where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_joules_per_token: Option<f64>,
    /// What it took for the tokens after the first, over these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_joules_per_token: Option<f64>,
}

/// What a device took while the questions were measured, in joules. Its counter knows no programs: it counts all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Who counted.
    pub source: EnergySource,
    /// Over the questions.
    pub joules_per_question: f64,
    /// Over tokens of prompt + candidate over all candidates.
    pub joules_per_token: f64,
}

/// Who counts joules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnergySource {
    /// The processor packages (running average power limit).
    Rapl,
    /// The card, read through NVIDIA's management library.
    Nvml,
}

/// What a device does at best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roofline {
    /// Bytes read and written by a copy beyond every cache, a second.
    pub copy_bytes_per_s: f64,
    /// Operations a second of a product of square matrices, in the type that the model's layers are multiplied in.
    pub matmul_flops: f64,
    /// That type: `int8` where activations are quantized.
    pub matmul_dtype: String,
}
