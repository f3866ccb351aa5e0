//! Reads evaluation and benchmark artifacts, and holds them to what they say about themselves.

use std::io::{BufRead, BufReader};
use std::path::Path;

use qpipe_nodes::results::{
    Answer, BENCHMARK_FILE, BenchmarkResult, EVALUATION_FILE, Evaluation, TaskResult,
};

use super::ReportError;

/// The task whose answers are compared.
pub(super) const TASK: &str = "mcqa";

/// An evaluation artifact in memory.
pub(super) struct Evaluated {
    pub(super) evaluation: Evaluation,
    pub(super) task: TaskResult,
    pub(super) answers: Vec<Answer>,
}

impl Evaluated {
    /// Reads the artifact in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, ReportError> {
        let summary = folder.join(EVALUATION_FILE);
        let text = fs_err::read_to_string(&summary)?;
        let mut evaluation: Evaluation =
            serde_json::from_str(&text).map_err(|error| ReportError::malformed(&summary, 1, &error))?;
        let Some(task) = evaluation.tasks.remove(TASK) else {
            return Err(ReportError::NoTask { path: summary, task: TASK });
        };
        let path = folder.join(format!("{TASK}.jsonl"));
        let answers = read_answers(&path)?;
        let correct = answers.iter().filter(|answer| answer.correct).count() as u64;
        if (answers.len() as u64, correct) != (task.n, task.correct) {
            let message = format!(
                "{correct} of {} answers are right, but {EVALUATION_FILE} says {} of {}",
                answers.len(),
                task.correct,
                task.n
            );
            return Err(ReportError::Inconsistent { path, message });
        }
        Ok(Self { evaluation, task, answers })
    }
}

fn read_answers(path: &Path) -> Result<Vec<Answer>, ReportError> {
    let mut answers = Vec::new();
    for (index, line) in BufReader::new(fs_err::File::open(path)?).lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer: Answer =
            serde_json::from_str(&line).map_err(|error| ReportError::malformed(path, index + 1, &error))?;
        let choices = answer.scores.len();
        let message = if answer.pred as usize >= choices || answer.gold as usize >= choices {
            format!("a choice beyond the {choices} that were scored")
        } else if answer.correct != (answer.pred == answer.gold) {
            "`correct` contradicts `pred` and `gold`".to_owned()
        } else {
            answers.push(answer);
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
