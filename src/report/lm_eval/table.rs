//! The table that lm-eval prints after a run, character for character.
//!
//! Two versions are known because published tables come from both. They differ in the order of the rows
//! (`hierarchy`) and in what a group's row says:
//!
//! | | 0.4.11 | 0.4.13 |
//! |---|---|---|
//! | arrow | always, unless tasks disagree | from children; none on a group of groups |
//! | n-shot | never | from children that agree; none on a group of groups |
//! | group without figures | a row without figures | no row |
//! | version of a group | as given, else `    N/A` | as a text, else `N/A` |

use std::collections::BTreeMap;

/// The lm-eval whose table is printed: a parameter of `report`.
pub use qpipe_nodes::kinds::HarnessTable as TableVersion;

use super::cell::Cell;
use super::hierarchy::{self, Place};
use super::results::{Results, Version};
use super::{inherited, markdown, python};

/// The headings, but for the first.
pub(super) const HEADINGS: [&str; 8] = ["Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"];
/// The first heading of the table of everything.
pub(super) const TASKS: &str = "Tasks";
/// The first heading of the table of groups.
pub(super) const GROUPS: &str = "Groups";
/// What stands for a standard error that is not known.
const NO_STDERR: &str = "   N/A";
/// What stands for a version that is not known.
const NO_VERSION: &str = "    N/A";
/// How 0.4.13 says the same of a group.
pub(super) const NO_GROUP_VERSION: &str = "N/A";

/// The table of all tasks and groups.
pub fn tasks_table(results: &Results, version: TableVersion) -> String {
    table(results, version, TASKS, |_| true)
}

/// The table of the groups that have figures; none without such a group.
pub fn groups_table(results: &Results, version: TableVersion) -> Option<String> {
    let has_figures = |name: &str| results.groups.get(name).is_some_and(|group| !group.metrics.is_empty());
    results.groups.keys().any(|name| has_figures(name)).then(|| table(results, version, GROUPS, has_figures))
}

/// A figure, whosever it is.
#[derive(Clone, Copy)]
struct Figure<'a> {
    metric: &'a str,
    filter: &'a str,
    value: f64,
    stderr: Option<f64>,
}

fn table(results: &Results, version: TableVersion, first: &str, shown: impl Fn(&str) -> bool) -> String {
    let shots = inherited::n_shots(results, version);
    let directions = inherited::directions(results, version);
    let mut rows = Vec::new();
    for place in hierarchy::places(results, version).into_iter().filter(|place| shown(place.name)) {
        let mut name = Cell::Text(shown_name(results, place));
        let mut stated = version_cell(results, place.name, version);
        let n_shot = shots.get(place.name).map_or(String::new(), u32::to_string);
        let figures = figures(results, place.name);
        if figures.is_empty() && version == TableVersion::V0_4_11 && results.groups.contains_key(place.name) {
            rows.push([name, text(NO_VERSION)].into_iter().chain([""; 7].map(text)).collect());
            continue;
        }
        for figure in figures {
            let direction =
                directions.get(place.name).and_then(|of| of.get(figure.metric)).copied().flatten();
            let arrow = match direction {
                Some(true) => "↑",
                Some(false) => "↓",
                None => "",
            };
            let stderr = figure.stderr.map_or(NO_STDERR.to_owned(), python::four_decimals);
            let value = python::four_decimals(figure.value);
            let rest = [figure.filter, &n_shot, figure.metric, arrow, &value, "±", &stderr];
            // Only the first row of a task or group says what it belongs to.
            let belongs = [std::mem::replace(&mut name, text("")), std::mem::replace(&mut stated, text(""))];
            rows.push(belongs.into_iter().chain(rest.map(text)).collect());
        }
    }
    let headings: Vec<&str> = [first].into_iter().chain(HEADINGS).collect();
    markdown::render(&headings, &rows)
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn shown_name(results: &Results, place: Place<'_>) -> String {
    let alias = match (results.groups.get(place.name), results.tasks.get(place.name)) {
        (Some(group), _) => &group.alias,
        (None, Some(task)) => &task.alias,
        (None, None) => place.name,
    };
    if place.depth > 0 { format!("{}- {alias}", " ".repeat(place.depth)) } else { alias.to_owned() }
}

fn version_cell(results: &Results, name: &str, version: TableVersion) -> Cell {
    let group = results.groups.get(name);
    if let Some(group) = group.filter(|_| version == TableVersion::V0_4_13) {
        // A text even if it is a number, which may decide how the column is read.
        return Cell::Text(group.version.as_ref().map_or(NO_GROUP_VERSION.to_owned(), Version::text));
    }
    let of_task = || results.tasks.get(name).and_then(|task| task.version.as_ref());
    match group.map_or_else(of_task, |group| group.version.as_ref()) {
        Some(Version::Number(number)) => Cell::Number(number.clone()),
        Some(Version::Text(stated)) => text(stated),
        None => text(NO_VERSION),
    }
}

/// The figures of a task or group, sorted by what the file calls them.
fn figures<'a>(results: &'a Results, name: &str) -> Vec<Figure<'a>> {
    let group = results.groups.get(name);
    let task = if group.is_some() { None } else { results.tasks.get(name) };
    let of_group = group.into_iter().flat_map(|group| &group.metrics).map(|metric| Figure {
        metric: &metric.name,
        filter: &metric.filter,
        value: metric.value,
        stderr: metric.stderr,
    });
    let of_task = task.into_iter().flat_map(|task| &task.metrics).map(|metric| Figure {
        metric: &metric.name,
        filter: &metric.filter,
        value: metric.value,
        stderr: metric.stderr,
    });
    let keyed =
        of_group.chain(of_task).map(|figure| (format!("{},{}", figure.metric, figure.filter), figure));
    keyed.collect::<BTreeMap<_, _>>().into_values().collect()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
