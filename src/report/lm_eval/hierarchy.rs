//! How groups contain each other, and in which order things are named.
//!
//! A group that contains itself, directly or through others, is entered once on each way down: lm-eval would
//! not come back from it.

use std::collections::BTreeSet;

use super::results::{Results, TaskResults};
use super::table::TableVersion;

/// A task or group in the order of a table, and how far it is indented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) depth: usize,
}

/// All tasks and groups as a table lists them.
///
/// - 0.4.13: groups that stand in no other group, sorted, each followed by its children, sorted; then the tasks
///   that stand in none. What stands in two groups is listed twice, both times as deep as the last.
/// - 0.4.11: groups and tasks that stand in no group, sorted together. What stands in two groups is listed in the
///   first, as deep as in the last.
pub(super) fn places(results: &Results, version: TableVersion) -> Vec<Place<'_>> {
    let inner = inner_names(results);
    let roots = results.groups.keys().map(String::as_str).filter(|name| !inner.contains(name));
    let alone = results.tasks.keys().map(String::as_str).filter(|name| !inner.contains(name));
    let mut tops: Vec<&str> = match version {
        TableVersion::V0_4_13 => roots.collect(),
        TableVersion::V0_4_11 => roots.chain(alone).collect(),
    };
    tops.sort_unstable();

    let mut visited = Vec::new();
    for top in tops {
        visit(results, top, &mut Vec::new(), &mut visited);
    }
    let mut listed: Vec<Place<'_>> = Vec::new();
    for &place in &visited {
        let again = version == TableVersion::V0_4_11 && listed.iter().any(|other| other.name == place.name);
        let known = results.tasks.contains_key(place.name) || results.groups.contains_key(place.name);
        if known && !again {
            let last = visited.iter().rfind(|other| other.name == place.name);
            listed.push(Place { depth: last.map_or(place.depth, |last| last.depth), ..place });
        }
    }
    let all: BTreeSet<&str> = results.groups.keys().chain(results.tasks.keys()).map(String::as_str).collect();
    let rest = all.into_iter().filter(|name| !visited.iter().any(|place| place.name == *name));
    listed.extend(rest.map(|name| Place { name, depth: 0 }));
    listed
}

/// Goes down from `name`, children sorted by name.
fn visit<'a>(results: &'a Results, name: &'a str, path: &mut Vec<&'a str>, visited: &mut Vec<Place<'a>>) {
    if path.contains(&name) {
        return;
    }
    visited.push(Place { name, depth: path.len() });
    let Some(group) = results.groups.get(name) else { return };
    let mut children: Vec<&str> = group.children.iter().map(String::as_str).collect();
    children.sort_unstable();
    path.push(name);
    for child in children {
        visit(results, child, path, visited);
    }
    path.pop();
}

/// Groups, a group before those within it, children as they were given: the order in which lm-eval keeps them.
pub(super) fn groups_parents_first(results: &Results) -> Vec<&str> {
    in_order(results, |name, entering| entering && results.groups.contains_key(name))
}

/// Groups, a group after those within it.
pub(super) fn groups_children_first(results: &Results) -> Vec<&str> {
    in_order(results, |name, entering| !entering && results.groups.contains_key(name))
}

/// Tasks, those of a group together and as it gives them: the order in which lm-eval runs them.
pub(super) fn tasks_as_run(results: &Results) -> Vec<&str> {
    in_order(results, |name, entering| entering && results.tasks.contains_key(name))
}

/// What is `wanted` on the way down (true) or up (false), where it is first met.
fn in_order(results: &Results, wanted: impl Fn(&str, bool) -> bool) -> Vec<&str> {
    let inner = inner_names(results);
    let names: BTreeSet<&str> =
        results.groups.keys().chain(results.tasks.keys()).map(String::as_str).collect();
    let tops = names.iter().filter(|name| !inner.contains(*name));
    // Groups that only contain each other are below no top.
    let rest = names.iter().filter(|name| inner.contains(*name));
    let mut order = Vec::new();
    for top in tops.chain(rest) {
        descend(results, top, &mut Vec::new(), &mut |name, entering| {
            if wanted(name, entering) && !order.contains(&name) {
                order.push(name);
            }
        });
    }
    order
}

/// The tasks below a group, a task once for each way that leads to it.
pub(super) fn leaves<'a>(results: &'a Results, group: &'a str) -> Vec<(&'a str, &'a TaskResults)> {
    let mut found = Vec::new();
    if results.groups.contains_key(group) {
        descend(results, group, &mut Vec::new(), &mut |name, entering| {
            if let Some(task) = results.tasks.get(name).filter(|_| entering) {
                found.push((name, task));
            }
        });
    }
    found
}

/// Tells `meet` each name on the way down (true) and up again (false), children as they were given.
fn descend<'a>(
    results: &'a Results,
    name: &'a str,
    path: &mut Vec<&'a str>,
    meet: &mut impl FnMut(&'a str, bool),
) {
    if path.contains(&name) {
        return;
    }
    meet(name, true);
    if let Some(group) = results.groups.get(name) {
        path.push(name);
        for child in &group.children {
            descend(results, child, path, meet);
        }
        path.pop();
    }
    meet(name, false);
}

fn inner_names(results: &Results) -> BTreeSet<&str> {
    results.groups.values().flat_map(|group| group.children.iter().map(String::as_str)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::results::GroupResults;
    use super::*;

    fn results(groups: &[(&str, &[&str])], tasks: &[&str]) -> Results {
        let mut results = Results::default();
        for &(name, children) in groups {
            let children = children.iter().map(|&child| child.to_owned()).collect();
            let group = GroupResults { alias: name.into(), version: None, children, metrics: Vec::new() };
            results.groups.insert(name.into(), group);
        }
        for &name in tasks {
            let task = TaskResults {
                alias: name.into(),
                version: None,
                n_shot: None,
                n_original: 1,
                n_effective: 1,
                metrics: Vec::new(),
            };
            results.tasks.insert(name.into(), task);
        }
        results
    }

    fn listed(results: &Results, version: TableVersion) -> String {
        let places = places(results, version);
        places.iter().map(|place| format!("{}{}", place.name, place.depth)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_the_older_table_mixes_groups_and_tasks() {
        let results = results(&[("m", &["z", "b"])], &["a", "b", "x", "z"]);
        assert_eq!(listed(&results, TableVersion::V0_4_13), "m0 b1 z1 a0 x0");
        assert_eq!(listed(&results, TableVersion::V0_4_11), "a0 m0 b1 z1 x0");
    }

    #[test]
    fn a_task_of_two_groups_is_as_deep_as_in_the_last() {
        let results = results(&[("a", &["c"]), ("b", &["d"]), ("d", &["c"])], &["c"]);
        assert_eq!(listed(&results, TableVersion::V0_4_13), "a0 c2 b0 d1 c2");
        assert_eq!(listed(&results, TableVersion::V0_4_11), "a0 c2 b0 d1");
    }

    #[test]
    fn groups_that_contain_each_other_are_listed_once() {
        let results = results(&[("a", &["b", "t"]), ("b", &["a"])], &["t"]);
        assert_eq!(listed(&results, TableVersion::V0_4_13), "a0 b0 t0");
        assert_eq!(groups_parents_first(&results), ["a", "b"]);
        assert_eq!(leaves(&results, "b").len(), 1);
    }

    #[test]
    fn files_keep_the_order_in_which_children_were_given() {
        let results = results(&[("top", &["z", "a"]), ("z", &["t2"]), ("a", &["t1"])], &["t1", "t2", "solo"]);
        assert_eq!(groups_parents_first(&results), ["top", "z", "a"]);
        assert_eq!(groups_children_first(&results), ["z", "a", "top"]);
        assert_eq!(tasks_as_run(&results), ["solo", "t2", "t1"]);
    }
}
