//! From artifacts to a [`Comparison`].

use std::collections::BTreeSet;
use std::path::PathBuf;

use qpipe_nodes::results::Answer;

use super::comparison::{Against, Comparison, Difference, Row};
use super::load::{Evaluated, EvaluatedTask, TASK, read_benchmark};
use super::statistics::{Discordant, holm, kl_divergence, wilson};
use super::tasks::{Recovered, TaskFigures, compared_as};
use super::{ReportError, format};

/// The artifacts that one row is made from.
#[derive(Clone, Debug)]
pub struct RowInput {
    /// The folder of an evaluation artifact.
    pub evaluation: PathBuf,
    /// The folders of the same model's benchmark artifacts.
    pub benchmarks: Vec<PathBuf>,
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
            benchmarks: input
                .benchmarks
                .iter()
                .map(|folder| read_benchmark(folder))
                .collect::<Result<_, _>>()?,
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
    let names: Vec<&str> = own.judged().map(|task| task.name.as_str()).collect();
    let answers = |tasks: &[&EvaluatedTask]| -> Vec<Answer> {
        tasks.iter().flat_map(|task| task.answers.clone()).collect()
    };
    let accuracy = |answers: &[Answer]| {
        answers.iter().filter(|answer| answer.correct).count() as f64 / answers.len().max(1) as f64
    };
    let line = |(name, members): (&str, Vec<&str>)| {
        let (before, after) = (theirs.tasks_among(&members), own.tasks_among(&members));
        let mut tasks = before.iter().zip(&after);
        let are_same = tasks.all(|(before, after)| difference_of_tasks(after, before).is_none());
        let (before, after) = (answers(&before), answers(&after));
        let is_same = are_same && before.len() == after.len() && before.iter().zip(&after).all(same_question);
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
    if let Some(reason) = difference_in_tasks(theirs, own) {
        return Some(reason);
    }
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

/// Why what was asked is not the same, as far as the tasks tell that the answers are of.
fn difference_in_tasks(theirs: &Evaluated, own: &Evaluated) -> Option<String> {
    if own.is_study && theirs.is_study {
        return None;
    }
    let names = |evaluated: &Evaluated| -> BTreeSet<String> {
        if evaluated.is_study {
            return BTreeSet::from([TASK.to_owned()]);
        }
        evaluated.judged().map(|task| task.name.clone()).collect()
    };
    let (before, after) = (names(theirs), names(own));
    if let Some(name) = before.symmetric_difference(&after).next() {
        return Some(format!("only one of them was asked `{name}`"));
    }
    own.judged().zip(theirs.judged()).find_map(|(after, before)| difference_of_tasks(after, before))
}

/// Why two tasks of one name are not the same.
fn difference_of_tasks(own: &EvaluatedTask, theirs: &EvaluatedTask) -> Option<String> {
    let fields = |task: &EvaluatedTask| {
        [
            ("version", task.figures.version.to_string()),
            ("num_fewshot", task.figures.num_fewshot.to_string()),
            ("output_type", task.figures.output_type.clone()),
        ]
    };
    fields(own).into_iter().zip(fields(theirs)).find_map(|((field, after), (_, before))| {
        (before != after).then(|| format!("`{field}` of `{}` is {after} and {before}", own.name))
    })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use qpipe_nodes::kinds::{Bos, Candidates};
    use qpipe_nodes::results::{Evaluation, HarnessResult, TaskResult};

    use super::*;

    /// An evaluation of `names`, each with two answers, the first of which is right.
    fn evaluated(names: &[&str], figures: &HarnessResult) -> Evaluated {
        let answer =
            |doc_id, pred| Answer { doc_id, scores: vec![-1.0, -2.0], pred, gold: 0, correct: pred == 0 };
        let result = |count: u64| TaskResult {
            n: 2 * count,
            correct: Some(count),
            accuracy: Some(0.5),
            candidates: Candidates::Text,
            bos: Bos::Never,
            tokens: 10,
            divergence: None,
            harness: Some(figures.clone()),
        };
        let task = |name: &&str| EvaluatedTask {
            name: (*name).to_owned(),
            result: result(1),
            figures: figures.clone(),
            answers: vec![answer(0, 0), answer(1, 1)],
        };
        let tasks: Vec<EvaluatedTask> = names.iter().map(task).collect();
        Evaluated {
            evaluation: Evaluation {
                tasks: BTreeMap::new(),
                dtype: "float32".to_owned(),
                device: "cpu".to_owned(),
                scheme: "dense".to_owned(),
                quantization: None,
                groups: BTreeMap::new(),
            },
            task: result(tasks.len() as u64),
            answers: tasks.iter().flat_map(|task| task.answers.clone()).collect(),
            is_study: false,
            tasks,
        }
    }

    #[test]
    fn tasks_that_were_asked_otherwise_are_not_paired() {
        let figures = HarnessResult {
            alias: None,
            version: 1.into(),
            num_fewshot: 0,
            of: 2,
            output_type: "multiple_choice".to_owned(),
            metrics: Vec::new(),
        };
        let baseline = evaluated(&["arc_easy"], &figures);
        assert_eq!(difference_in_kind(&baseline, &evaluated(&["arc_easy"], &figures)), None);
        let five = HarnessResult { num_fewshot: 5, ..figures.clone() };
        let newer = HarnessResult { version: 2.into(), ..figures.clone() };
        let written = HarnessResult { output_type: "generate_until".to_owned(), ..figures.clone() };
        for (own, reason) in [
            (evaluated(&["piqa"], &figures), "only one of them was asked `arc_easy`"),
            (evaluated(&["arc_easy", "piqa"], &figures), "only one of them was asked `piqa`"),
            (evaluated(&["arc_easy"], &five), "`num_fewshot` of `arc_easy` is 5 and 0"),
            (evaluated(&["arc_easy"], &newer), "`version` of `arc_easy` is 2 and 1"),
            (
                evaluated(&["arc_easy"], &written),
                "`output_type` of `arc_easy` is generate_until and multiple_choice",
            ),
        ] {
            assert_eq!(difference_in_kind(&baseline, &own).as_deref(), Some(reason));
            let lines = recovered(&own, &baseline);
            assert!(lines.iter().all(|line| line.name == "arc_easy") && lines.len() < 2);
            assert_eq!(lines.len(), usize::from(own.tasks.len() == 2), "{reason}");
        }
    }
}
