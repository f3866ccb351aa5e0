//! lm-eval's tasks in a report: each row's figures, and how they compare with the baseline's.

use qpipe_nodes::results::HarnessResult;
use qpipe_nodes::task_group::{GroupFigure, TaskGroups, Together};
use qpipe_nodes::tasks::{MMLU, MMLU_VERSION, MmluGroup};
use serde::{Deserialize, Serialize};

use super::comparison::{Difference, Row};
use super::format;
use super::lm_eval::{GroupResults, Metric, Results, TaskResults, Version};
use super::names::Named;
use super::statistics::wilson;

/// A task of lm-eval's in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskFigures {
    /// As a pipeline names it.
    pub name: String,
    /// Questions asked.
    pub n: u64,
    /// Of these, answered rightly (`acc`, `prompt_level_strict_acc`, the first filter's `exact_match`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<u64>,
    /// lm-eval's figures.
    pub figures: HarnessResult,
}

/// A task, or MMLU as a whole, against the baseline's, question by question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    /// What it is called.
    pub name: String,
    /// The baseline's accuracy, from 0 to 1.
    pub before: f64,
    /// This row's.
    pub after: f64,
    /// The difference of the two.
    pub difference: Difference,
}

impl Recovered {
    /// The share of the baseline's accuracy that is left; `None` where it has none.
    pub fn recovery(&self) -> Option<f64> {
        (self.before > 0.0).then(|| self.after / self.before)
    }
}

/// Under which name each task of a row is compared: MMLU's subjects as one where all were asked.
pub(super) fn compared_as<'a>(tasks: &[&'a str]) -> Vec<(&'a str, Vec<&'a str>)> {
    let is_whole =
        MMLU.iter().flat_map(|group| group.subjects).all(|subject| tasks.contains(&leaf(subject).as_str()));
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for &task in tasks {
        let name = if is_whole && task.starts_with("mmlu_") { "mmlu" } else { task };
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, members)) => members.push(task),
            None => groups.push((name, vec![task])),
        }
    }
    groups
}

/// A row's figures as lm-eval's tables and files have them: MMLU's groups where all their subjects were asked, and those of
/// files.
pub(super) fn results(row: &Row) -> Results {
    gathered(&row.tasks, &row.groups)
}

fn gathered(tasks: &[TaskFigures], groups_of_files: &TaskGroups) -> Results {
    let mut results = Results::default();
    for task in tasks {
        results.tasks.insert(task.name.clone(), task_results(task));
    }
    let has_all =
        |group: &MmluGroup| group.subjects.iter().all(|subject| results.tasks.contains_key(&leaf(subject)));
    let groups: Vec<&MmluGroup> = MMLU.iter().filter(|group| has_all(group)).collect();
    let whole = groups.len() == MMLU.len();
    for group in &groups {
        let children = group.subjects.iter().map(|subject| leaf(subject)).collect();
        results.groups.insert(leaf(group.name), group_results(group.alias, children));
    }
    if whole {
        let children = groups.iter().map(|group| leaf(group.name)).collect();
        results.groups.insert("mmlu".to_owned(), group_results("mmlu", children));
    }
    let mut figures: Vec<(String, GroupFigure)> = results
        .groups
        .keys()
        .filter(|name| !groups_of_files.contains_key(*name))
        .map(|name| (name.clone(), mmlu_figure()))
        .collect();
    for (name, group) in groups_of_files {
        results.groups.insert(
            name.clone(),
            GroupResults {
                alias: group.alias.clone().unwrap_or_else(|| name.clone()),
                version: Some(Version::of(&group.version)),
                children: group.children.clone(),
                metrics: Vec::new(),
            },
        );
        figures.extend(group.figures.iter().map(|figure| (name.clone(), figure.clone())));
    }
    for (name, figure) in figures {
        let filters = figure.filter_list.as_deref();
        let metrics = results.aggregate_some(&name, &figure.metric, filters, figure.weight_by_size);
        if let Some(group) = results.groups.get_mut(&name) {
            group.metrics.extend(metrics);
        }
    }
    results
}

/// The figure of MMLU's groups.
fn mmlu_figure() -> GroupFigure {
    GroupFigure {
        metric: "acc".to_owned(),
        filter_list: None,
        aggregation: Together::Mean,
        weight_by_size: true,
    }
}

fn leaf(part: &str) -> String {
    format!("mmlu_{part}")
}

fn group_results(alias: &str, children: Vec<String>) -> GroupResults {
    let version = Some(Version::Number(MMLU_VERSION.into()));
    GroupResults { alias: alias.to_owned(), version, children, metrics: Vec::new() }
}

fn task_results(task: &TaskFigures) -> TaskResults {
    let figures = &task.figures;
    let metric = |metric: &qpipe_nodes::results::MetricResult| Metric {
        name: metric.name.clone(),
        filter: metric.filter.clone(),
        value: metric.value,
        stderr: metric.stderr,
        higher_is_better: Some(metric.higher_is_better),
    };
    TaskResults {
        alias: figures.alias.clone().unwrap_or_else(|| task.name.clone()),
        version: Some(Version::of(&figures.version)),
        n_shot: Some(figures.num_fewshot),
        n_original: figures.of,
        n_effective: task.n,
        metrics: figures.metrics.iter().map(metric).collect(),
    }
}

/// The table of a row's tasks against its baseline, in Markdown. Empty where nothing is compared.
pub(super) fn recovery_table(row: &Row) -> String {
    if row.recovered.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "| task | base acc % | acc % | recovery % | points | 95 % of points | p | p (Holm) | flips % |\n\
         |:--|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for line in &row.recovered {
        let difference = &line.difference;
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} to {} | {} | {} | {} |\n",
            line.name,
            format::percent(line.before),
            format::percent(line.after),
            line.recovery().map_or_else(String::new, format::percent),
            format::points(difference.diff),
            format::points(difference.ci95.low),
            format::points(difference.ci95.high),
            format::probability(difference.mcnemar_p),
            format::probability(difference.holm_p),
            format::percent(difference.flips),
        ));
    }
    text.trim_end().to_owned()
}

/// What the tasks of a row say against its baseline, in a sentence or two. `None` where nothing is compared.
pub(super) fn observation(named: &Named<'_>, name: &str, row: &Row) -> Option<String> {
    let (baseline, whole) = row.difference()?;
    let real: Vec<String> = row
        .recovered
        .iter()
        .filter(|line| line.difference.is_real())
        .map(|line| format!("{} ({} points)", line.name, format::points(line.difference.diff)))
        .collect();
    let tasks = format::plural(row.recovered.len() as u64, "task");
    let baseline = named.name(baseline);
    let verdict = if real.is_empty() {
        format!("no difference from **{baseline}** is real on any of {tasks}, corrected for their number")
    } else {
        format!(
            "of {tasks}, corrected for their number, the difference from **{baseline}** is real on {}",
            real.join(", ")
        )
    };
    let before = wilson(named.row(row.difference()?.0).correct, row.n);
    Some(format!(
        "**{name}**: {verdict}. Over all {} it gives {} fewer and {} more right answers than **{baseline}** \
         ({} points, 95 % interval {} to {}; the baseline's accuracy itself is known to within {} to {} %); {} % of the \
         answers changed.",
        format::plural(row.n, "question"),
        format::count(whole.lost),
        format::count(whole.won),
        format::points(whole.diff),
        format::points(whole.ci95.low),
        format::points(whole.ci95.high),
        format::percent(before.low),
        format::percent(before.high),
        format::percent(whole.flips),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use qpipe_nodes::results::{MetricResult, NO_FILTER};
    use qpipe_nodes::task_group::TaskGroup;
    use serde_json::{Value, json};

    use super::*;

    fn task(name: &str, n: u64, acc: f64) -> TaskFigures {
        let metric = MetricResult {
            name: "acc".to_owned(),
            filter: NO_FILTER.to_owned(),
            value: acc,
            stderr: Some(0.1),
            higher_is_better: true,
        };
        let figures = HarnessResult {
            alias: None,
            version: 1.0.into(),
            num_fewshot: 0,
            of: n,
            output_type: "multiple_choice".to_owned(),
            metrics: vec![metric],
        };
        TaskFigures { name: name.to_owned(), n, correct: None, figures }
    }

    #[test]
    fn a_group_of_a_file_has_the_figures_that_it_asks_for() {
        let group = |children: &[&str], figures: Value| TaskGroup {
            alias: None,
            version: Value::Null,
            children: children.iter().map(|name| (*name).to_owned()).collect(),
            figures: serde_json::from_value(figures).expect("figures"),
        };
        let groups = BTreeMap::from([
            ("all".to_owned(), group(&["few", "inner"], json!([{"metric": "acc"}]))),
            ("inner".to_owned(), group(&["many"], json!([]))),
            ("even".to_owned(), group(&["few", "many"], json!([{"metric": "acc", "weight_by_size": false}]))),
            ("other".to_owned(), group(&["few"], json!([{"metric": "acc", "filter_list": ["strict"]}]))),
        ]);
        let found = gathered(&[task("few", 10, 0.5), task("many", 30, 0.9)], &groups);
        let values = |name: &str| -> Vec<f64> {
            found.groups[name].metrics.iter().map(|metric| metric.value).collect()
        };
        assert_eq!((values("all"), values("even")), (vec![(5.0 + 27.0) / 40.0], vec![0.7]));
        assert!(values("inner").is_empty() && values("other").is_empty());
        let stderr = found.groups["even"].metrics[0].stderr.expect("one");
        assert!((stderr - 0.02_f64.sqrt() / 2.0).abs() < 1e-15);
        assert_eq!(found.groups["all"].version, Some(Version::Text("N/A".to_owned())));
    }

    #[test]
    fn mmlu_is_one_task_where_all_subjects_were_asked() {
        let subjects: Vec<String> =
            MMLU.iter().flat_map(|group| group.subjects).map(|name| leaf(name)).collect();
        let mut tasks: Vec<&str> = subjects.iter().map(String::as_str).collect();
        tasks.insert(0, "arc_easy");
        let names = |groups: Vec<(&str, Vec<&str>)>| -> Vec<(String, usize)> {
            groups.into_iter().map(|(name, members)| (name.to_owned(), members.len())).collect()
        };
        assert_eq!(names(compared_as(&tasks)), [("arc_easy".to_owned(), 1), ("mmlu".to_owned(), 57)]);
        tasks.pop();
        assert_eq!(compared_as(&tasks).len(), 57);
    }
}
