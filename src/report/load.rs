//! Reads evaluation and benchmark artifacts, and holds them to what they say about themselves.

use std::io::{BufRead, BufReader};
use std::path::Path;

use qpipe_nodes::results::{
    Answer, BENCHMARK_FILE, BenchmarkResult, Divergence, EVALUATION_FILE, Evaluation, HarnessResult, Sample,
    TaskResult,
};
use serde::de::DeserializeOwned;

use super::ReportError;

/// The task of the published eleven-variant study.
pub(super) const TASK: &str = "mcqa";

/// An evaluation artifact in memory.
pub(super) struct Evaluated {
    pub(super) evaluation: Evaluation,
    /// What the row's accuracy is of: the four-choice questions, else the questions of all tasks.
    pub(super) task: TaskResult,
    pub(super) answers: Vec<Answer>,
    /// Whether these are the four-choice questions.
    pub(super) is_study: bool,
    /// lm-eval's tasks, sorted by name, with their answers.
    pub(super) tasks: Vec<EvaluatedTask>,
}

/// A task of lm-eval's in memory.
pub(super) struct EvaluatedTask {
    pub(super) name: String,
    pub(super) result: TaskResult,
    pub(super) figures: HarnessResult,
    pub(super) answers: Vec<Answer>,
}

impl Evaluated {
    /// Reads the artifact in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, ReportError> {
        let summary = folder.join(EVALUATION_FILE);
        let text = fs_err::read_to_string(&summary)?;
        let mut evaluation: Evaluation =
            serde_json::from_str(&text).map_err(|error| ReportError::malformed(&summary, 1, &error))?;
        let mut tasks = Vec::new();
        for (name, result) in std::mem::take(&mut evaluation.tasks) {
            let path = folder.join(format!("{name}.jsonl"));
            match result.harness.clone() {
                Some(figures) => {
                    let answers = read_lines::<Sample>(&path)?.into_iter().map(answer).collect::<Vec<_>>();
                    check_counts(&path, &result, &answers)?;
                    tasks.push(EvaluatedTask { name, result, figures, answers });
                }
                None => {
                    evaluation.tasks.insert(name, result);
                }
            }
        }
        let is_study = evaluation.tasks.contains_key(TASK);
        let (task, answers) = match evaluation.tasks.remove(TASK) {
            Some(task) => {
                let path = folder.join(format!("{TASK}.jsonl"));
                let answers = read_answers(&path)?;
                check_counts(&path, &task, &answers)?;
                (task, answers)
            }
            None => together(&tasks).ok_or(ReportError::NoTask { path: summary, task: TASK })?,
        };
        Ok(Self { evaluation, task, answers, is_study, tasks })
    }

    /// Those of lm-eval's tasks that are called so.
    pub(super) fn tasks_among(&self, names: &[&str]) -> Vec<&EvaluatedTask> {
        self.tasks.iter().filter(|task| names.contains(&task.name.as_str())).collect()
    }

    /// lm-eval's tasks whose answers are right or wrong.
    pub(super) fn judged(&self) -> impl Iterator<Item = &EvaluatedTask> {
        self.tasks.iter().filter(|task| task.is_judged())
    }
}

/// All tasks with right and wrong answers as one; without such a task, nothing was asked. `None`: there is no task at all.
fn together(tasks: &[EvaluatedTask]) -> Option<(TaskResult, Vec<Answer>)> {
    let first = tasks.first()?;
    let judged = || tasks.iter().filter(|task| task.is_judged());
    let sum = |count: fn(&TaskResult) -> u64| judged().map(|task| count(&task.result)).sum::<u64>();
    let (n, correct) = (sum(|task| task.n), sum(|task| task.correct.unwrap_or_default()));
    let result = TaskResult {
        n,
        correct: Some(correct),
        accuracy: (n > 0).then(|| correct as f64 / n as f64),
        tokens: sum(|task| task.tokens),
        divergence: tasks.iter().filter_map(|task| task.result.divergence).reduce(Divergence::and),
        harness: None,
        ..first.result.clone()
    };
    Some((result, judged().flat_map(|task| task.answers.clone()).collect()))
}

impl EvaluatedTask {
    /// Whether its answers are right or wrong.
    pub(super) fn is_judged(&self) -> bool {
        self.result.correct.is_some()
    }
}

/// A question of lm-eval's as one with a single right choice, which is all that comparing needs. A reply is choice 1 where it
/// is right, else choice 0.
fn answer(sample: Sample) -> Answer {
    let Sample { doc_id, scores, .. } = sample;
    let correct = sample.correct.unwrap_or_default();
    let (pred, gold) = match sample.pred {
        None => (u32::from(correct), 1),
        Some(pred) if correct => (pred, pred),
        Some(pred) => (pred, sample.gold.first().copied().unwrap_or(u32::MAX)),
    };
    Answer { doc_id, scores, pred, gold, correct }
}

fn check_counts(path: &Path, task: &TaskResult, answers: &[Answer]) -> Result<(), ReportError> {
    let correct = answers.iter().filter(|answer| answer.correct).count() as u64;
    let claimed = task.correct.unwrap_or_default();
    if (answers.len() as u64, correct) == (task.n, claimed) {
        return Ok(());
    }
    let message = format!(
        "{correct} of {} answers are right, but {EVALUATION_FILE} says {} of {}",
        answers.len(),
        claimed,
        task.n
    );
    Err(ReportError::Inconsistent { path: path.to_owned(), message })
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReportError> {
    let mut rows = Vec::new();
    for (index, line) in BufReader::new(fs_err::File::open(path)?).lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            rows.push(
                serde_json::from_str(&line)
                    .map_err(|error| ReportError::malformed(path, index + 1, &error))?,
            );
        }
    }
    Ok(rows)
}

fn read_answers(path: &Path) -> Result<Vec<Answer>, ReportError> {
    let answers: Vec<Answer> = read_lines(path)?;
    for (index, answer) in answers.iter().enumerate() {
        let choices = answer.scores.len();
        let message = if answer.pred as usize >= choices || answer.gold as usize >= choices {
            format!("a choice beyond the {choices} that were scored")
        } else if answer.correct != (answer.pred == answer.gold) {
            "`correct` contradicts `pred` and `gold`".to_owned()
        } else {
            continue;
        };
        return Err(ReportError::Malformed { path: path.to_owned(), line: index + 1, column: 0, message });
    }
    Ok(answers)
}

/// Reads the benchmark artifact in `folder`.
pub(super) fn read_benchmark(folder: &Path) -> Result<BenchmarkResult, ReportError> {
    let path = folder.join(BENCHMARK_FILE);
    let text = fs_err::read_to_string(&path)?;
    serde_json::from_str(&text).map_err(|error| ReportError::malformed(&path, 1, &error))
}
