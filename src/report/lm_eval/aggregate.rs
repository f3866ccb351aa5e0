//! A group's figures from those of its tasks.
//!
//! Documents are what is averaged: a group's mean weighs each task by its number of documents, and a group of
//! groups is the mean over the tasks below it, never over its subgroups' means.

use std::collections::BTreeSet;

use super::hierarchy;
use super::results::{GroupMetric, Metric, Results};

/// A task's figure and the number of documents behind it.
struct Part<'a> {
    n: u64,
    metric: &'a Metric,
}

impl Results {
    /// What `metric` is for the group, with each filter that a task of the group knows, sorted by filter.
    ///
    /// A task without the metric does not count. A task that stands twice below the group counts twice. Empty
    /// for an unknown group.
    pub fn aggregate(&self, group: &str, metric: &str) -> Vec<GroupMetric> {
        self.aggregate_some(group, metric, None, true)
    }

    /// The same with only some `filters`, in their order, where they are named; and with all tasks of one weight where they
    /// are not weighed by their size.
    pub fn aggregate_some(
        &self,
        group: &str,
        metric: &str,
        filters: Option<&[String]>,
        weigh_by_size: bool,
    ) -> Vec<GroupMetric> {
        let leaves = hierarchy::leaves(self, group);
        let figures = || {
            leaves.iter().flat_map(|(_, task)| {
                let named = task.metrics.iter().filter(|figure| figure.name == metric);
                named.map(|figure| Part { n: task.n_effective, metric: figure })
            })
        };
        let known: BTreeSet<&str> = figures().map(|part| part.metric.filter.as_str()).collect();
        let wanted: Vec<&str> = match filters {
            Some(filters) => filters.iter().map(String::as_str).filter(|name| known.contains(name)).collect(),
            None => known.into_iter().collect(),
        };
        wanted
            .into_iter()
            .map(|filter| {
                let parts: Vec<Part<'_>> = figures().filter(|part| part.metric.filter == filter).collect();
                GroupMetric {
                    name: metric.to_owned(),
                    filter: filter.to_owned(),
                    value: if weigh_by_size { weighted_mean(&parts) } else { mean(&parts) },
                    stderr: if weigh_by_size { pooled_stderr(&parts) } else { stderr_of_mean(&parts) },
                    n: parts.iter().map(|part| part.n).sum(),
                }
            })
            .collect()
    }
}

fn documents(parts: &[Part<'_>]) -> f64 {
    parts.iter().map(|part| part.n).sum::<u64>() as f64
}

fn weighted_mean(parts: &[Part<'_>]) -> f64 {
    // Not `sum`, which begins at -0 and so keeps the sign of a zero.
    let sum = parts.iter().fold(0.0, |sum, part| sum + part.metric.value * part.n as f64);
    sum / documents(parts)
}

fn mean(parts: &[Part<'_>]) -> f64 {
    parts.iter().fold(0.0, |sum, part| sum + part.metric.value) / parts.len() as f64
}

/// The standard error of the mean over tasks that know nothing of each other. A task without one leaves the group without one.
fn stderr_of_mean(parts: &[Part<'_>]) -> Option<f64> {
    let mut squares = 0.0;
    for part in parts {
        squares += part.metric.stderr?.powi(2);
    }
    Some(squares.sqrt() / parts.len() as f64)
}

/// The standard error of the mean over all documents, from the variance within the tasks: the spread between
/// their means is not in it. A task without a standard error leaves the group without one.
fn pooled_stderr(parts: &[Part<'_>]) -> Option<f64> {
    let mut squares = 0.0;
    for part in parts {
        let (n, stderr) = (part.n as f64, part.metric.stderr?);
        squares += (n - 1.0) * (stderr * stderr) * n;
    }
    let n = documents(parts);
    let freedom = n - parts.len() as f64;
    (freedom != 0.0).then(|| (squares / freedom / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::super::results::{GroupResults, TaskResults};
    use super::*;

    fn task(n: u64, value: f64, stderr: Option<f64>) -> TaskResults {
        let metric =
            Metric { name: "acc".into(), filter: "none".into(), value, stderr, higher_is_better: Some(true) };
        TaskResults {
            alias: String::new(),
            version: None,
            n_shot: Some(0),
            n_original: n,
            n_effective: n,
            metrics: vec![metric],
        }
    }

    fn nested() -> Results {
        let mut results = Results::default();
        results.tasks.insert("small".into(), task(3, 1.0, Some(0.0)));
        results.tasks.insert("large".into(), task(10, 0.5, Some(0.1)));
        results.tasks.insert("odd".into(), task(1, 0.0, None));
        for (name, children) in
            [("top", ["inner", "small"].as_slice()), ("inner", &["large"]), ("all", &["top", "odd"])]
        {
            let children = children.iter().map(|&child| child.to_owned()).collect();
            let group = GroupResults { alias: name.into(), version: None, children, metrics: Vec::new() };
            results.groups.insert(name.into(), group);
        }
        results
    }

    #[test]
    fn a_group_of_groups_is_the_mean_over_documents() {
        let [top] = nested().aggregate("top", "acc").try_into().expect("one filter");
        assert_eq!((top.value, top.n), ((10.0 * 0.5 + 3.0) / 13.0, 13));
        // Pooled by hand: 9 * 10 * 0.01 / (13 - 2) / 13.
        assert!((top.stderr.expect("both tasks have one") - (0.9_f64 / 11.0 / 13.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn one_task_without_a_standard_error_leaves_the_group_without() {
        let [all] = nested().aggregate("all", "acc").try_into().expect("one filter");
        assert_eq!((all.stderr, all.n), (None, 14));
    }

    #[test]
    fn a_metric_that_no_task_has_gives_nothing() {
        assert!(nested().aggregate("top", "f1").is_empty());
        assert!(nested().aggregate("nowhere", "acc").is_empty());
    }
}
