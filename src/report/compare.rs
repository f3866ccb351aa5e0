//! From artifacts to a [`Comparison`].

use std::path::PathBuf;

use qpipe_nodes::results::Answer;

use super::comparison::{Against, Comparison, Difference, Row};
use super::load::{Evaluated, EvaluatedTask, read_benchmark};
use super::statistics::{Discordant, holm, kl_divergence, wilson};
use super::tasks::{Recovered, TaskFigures, compared_as};
use super::{ReportError, format};

/// The artifacts that one row is made from.
#[derive(Clone, Debug)]
pub struct RowInput {
    /// The folder of an evaluation artifact.
    pub evaluation: PathBuf,
    /// The folder of the same model's benchmark artifact.
    pub benchmark: Option<PathBuf>,
    /// The model node's label.
    pub label: Option<String>,
    /// Index of the row that this one is compared with. A row's own index means none.
    pub baseline: Option<usize>,
}

/// Compares `rows`, keeping their order. The result depends on nothing but the artifacts' bytes, the labels, the
/// baselines and the title; so a caller whose result must not depend on the order of a file brings the rows into an
/// order of its own first, and the result into the file's with [`Comparison::reordered`].
///
/// A row whose questions are not its baseline's, or were scored in another way, is not paired with it;
/// the comparison says why.
pub fn compare(rows: &[RowInput], title: &str) -> Result<Comparison, ReportError> {
    let evaluated = rows.iter().map(|row| Evaluated::read(&row.evaluation)).collect::<Result<Vec<_>, _>>()?;
    let mut compared = Vec::with_capacity(rows.len());
    for (index, (input, own)) in rows.iter().zip(&evaluated).enumerate() {
        let against = match input.baseline {
            Some(baseline) if baseline >= rows.len() => {
                return Err(ReportError::NoBaseline { row: index, baseline, rows: rows.len() });
            }
            Some(baseline) if baseline != index && own.task.n > 0 => {
                Some(pair(baseline, &evaluated[baseline], own))
            }
            _ => None,
        };
        let (n, correct) = (own.task.n, own.task.correct.unwrap_or_default());
        let theirs = match &against {
            Some(Against::Paired { baseline, .. }) => Some(&evaluated[*baseline]),
            Some(Against::Unpaired { .. }) | None => None,
        };
        compared.push(Row {
            label: input.label.clone(),
            n,
            correct,
            accuracy: if n == 0 { 0.0 } else { correct as f64 / n as f64 },
            ci95: wilson(correct, n),
            candidates: own.task.candidates,
            bos: own.task.bos,
            dtype: own.evaluation.dtype.clone(),
            device: own.evaluation.device.clone(),
            scheme: own.evaluation.scheme.clone(),
            quantization: own.evaluation.quantization.clone(),
            divergence: own.task.divergence,
            tasks: own.tasks.iter().map(figures).collect(),
            groups: own.evaluation.groups.clone(),
            recovered: theirs.map(|theirs| recovered(own, theirs)).unwrap_or_default(),
            benchmark: input.benchmark.as_deref().map(read_benchmark).transpose()?,
            against,
        });
    }
    correct_for_many(&mut compared);
    Ok(Comparison { title: title.to_owned(), rows: compared, ..Comparison::default() })
}

fn figures(task: &EvaluatedTask) -> TaskFigures {
    TaskFigures {
        name: task.name.clone(),
        n: task.result.n,
        correct: task.result.correct,
        figures: task.figures.clone(),
    }
}

/// The tasks of `own` against those of `theirs`, as far as both answered the same questions.
fn recovered(own: &Evaluated, theirs: &Evaluated) -> Vec<Recovered> {
    let judged = own.tasks.iter().filter(|task| task.is_judged());
    let names: Vec<&str> = judged.map(|task| task.name.as_str()).collect();
    let answers = |evaluated: &Evaluated, members: &[&str]| -> Vec<Answer> {
        let tasks = evaluated.tasks.iter().filter(|task| members.contains(&task.name.as_str()));
        tasks.flat_map(|task| task.answers.clone()).collect()
    };
    let accuracy = |answers: &[Answer]| {
        answers.iter().filter(|answer| answer.correct).count() as f64 / answers.len().max(1) as f64
    };
    let line = |(name, members): (&str, Vec<&str>)| {
        let (before, after) = (answers(theirs, &members), answers(own, &members));
        let is_same = before.len() == after.len() && before.iter().zip(&after).all(same_question);
        is_same.then(|| Recovered {
            name: name.to_owned(),
            before: accuracy(&before),
            after: accuracy(&after),
            difference: question_by_question(&before, &after),
        })
    };
    compared_as(&names).into_iter().filter_map(line).collect()
}

/// Whether two answers are to one question, as far as they tell.
fn same_question((a, b): (&Answer, &Answer)) -> bool {
    // Of several right choices, the one that was given is named.
    let is_gold_same = a.gold == b.gold || (a.correct || b.correct);
    a.doc_id == b.doc_id && a.scores.len() == b.scores.len() && is_gold_same
}

fn pair(baseline: usize, theirs: &Evaluated, own: &Evaluated) -> Against {
    match difference_in_kind(theirs, own) {
        Some(reason) => Against::Unpaired { baseline, reason },
        None => Against::Paired { baseline, difference: question_by_question(&theirs.answers, &own.answers) },
    }
}

/// Why the answers cannot be paired, if they cannot.
fn difference_in_kind(theirs: &Evaluated, own: &Evaluated) -> Option<String> {
    if theirs.task.n != own.task.n {
        return Some(format!(
            "they answered {} and {} questions",
            format::count(own.task.n),
            format::count(theirs.task.n)
        ));
    }
    if !theirs.answers.iter().zip(&own.answers).all(same_question) {
        return Some("they answered different questions".to_owned());
    }
    if theirs.task.candidates != own.task.candidates {
        return Some("different texts were scored as their answers".to_owned());
    }
    if theirs.task.bos != own.task.bos {
        return Some("their prompts began differently (`bos`)".to_owned());
    }
    None
}

fn question_by_question(baseline: &[Answer], variant: &[Answer]) -> Difference {
    let (mut lost, mut won, mut flipped, mut kl, mut scored) = (0, 0, 0, 0.0, 0_u64);
    for (before, after) in baseline.iter().zip(variant) {
        lost += u64::from(before.correct && !after.correct);
        won += u64::from(after.correct && !before.correct);
        flipped += u64::from(before.pred != after.pred);
        // Written replies have no scores to compare.
        if !after.scores.is_empty() {
            kl += kl_divergence(&before.scores, &after.scores);
            scored += 1;
        }
    }
    let n = variant.len() as u64;
    let discordant = Discordant { lost, won, n };
    let p = discordant.mcnemar_p();
    let per_question = |sum: f64| if n == 0 { 0.0 } else { sum / n as f64 };
    Difference {
        lost,
        won,
        diff: discordant.difference(),
        ci95: discordant.interval(),
        mcnemar_p: p,
        holm_p: p,
        flipped,
        flips: per_question(flipped as f64),
        kl: (scored > 0).then(|| kl / scored as f64),
    }
}

/// Sets `holm_p` of every difference from the `mcnemar_p` of all of them: of the rows, and of the tasks of all rows.
fn correct_for_many(rows: &mut [Row]) {
    let recovered = rows.iter_mut().flat_map(|row| &mut row.recovered);
    let mut of_tasks: Vec<&mut Difference> = recovered.map(|task| &mut task.difference).collect();
    let p: Vec<f64> = of_tasks.iter().map(|difference| difference.mcnemar_p).collect();
    for (difference, adjusted) in of_tasks.iter_mut().zip(holm(&p)) {
        difference.holm_p = adjusted;
    }
    let mut differences: Vec<&mut Difference> = rows
        .iter_mut()
        .filter_map(|row| match row.against.as_mut()? {
            Against::Paired { difference, .. } => Some(difference),
            Against::Unpaired { .. } => None,
        })
        .collect();
    let p: Vec<f64> = differences.iter().map(|difference| difference.mcnemar_p).collect();
    for (difference, adjusted) in differences.iter_mut().zip(holm(&p)) {
        difference.holm_p = adjusted;
    }
}
