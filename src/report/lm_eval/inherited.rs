//! What a group is said to have because its children have it: shots and the direction of its metrics.
//!
//! Neither is a property of groups in lm-eval, and how far it goes up depends on the version:
//!
//! | | 0.4.11 | 0.4.13 |
//! |---|---|---|
//! | shots | never | from children that agree |
//! | direction | from all tasks of all groups together | from children |
//!
//! In 0.4.13 each group asks its children once, a group before those within it. Subgroups know nothing by then: a
//! group that contains only groups gets neither.

use std::collections::BTreeMap;

use super::hierarchy;
use super::results::{Results, TaskResults};
use super::table::TableVersion;

/// The direction of each metric; none where it is unknown or contested.
pub(super) type Directions<'a> = BTreeMap<&'a str, Option<bool>>;

/// Shots by task and group.
pub(super) fn n_shots(results: &Results, version: TableVersion) -> BTreeMap<&str, u32> {
    let tasks = results.tasks.iter();
    let mut known: BTreeMap<&str, u32> =
        tasks.filter_map(|(name, task)| Some((name.as_str(), task.n_shot?))).collect();
    if version == TableVersion::V0_4_11 {
        return known;
    }
    for name in hierarchy::groups_parents_first(results) {
        let children = results.groups[name].children.iter();
        let mut shots = children.filter_map(|child| known.get(child.as_str()).copied());
        if let Some(first) = shots.next()
            && shots.all(|other| other == first)
        {
            known.insert(name, first);
        }
    }
    known
}

/// Directions by task and group.
pub(super) fn directions(results: &Results, version: TableVersion) -> BTreeMap<&str, Directions<'_>> {
    let mut known: BTreeMap<&str, Directions<'_>> =
        results.tasks.iter().map(|(name, task)| (name.as_str(), of_task(task))).collect();
    let groups = hierarchy::groups_parents_first(results);
    match version {
        TableVersion::V0_4_11 => {
            let mut shared = Directions::new();
            for child in groups.iter().flat_map(|name| &results.groups[*name].children) {
                if let Some(task) = results.tasks.get(child) {
                    merge(&mut shared, &of_task(task));
                }
            }
            let with_children = groups.into_iter().filter(|name| !results.groups[*name].children.is_empty());
            known.extend(with_children.map(|name| (name, shared.clone())));
        }
        TableVersion::V0_4_13 => {
            for name in groups {
                let mut merged = Directions::new();
                for child in &results.groups[name].children {
                    if let Some(directions) = known.get(child.as_str()) {
                        merge(&mut merged, directions);
                    }
                }
                if !merged.is_empty() {
                    known.insert(name, merged);
                }
            }
        }
    }
    known
}

fn of_task(task: &TaskResults) -> Directions<'_> {
    task.metrics.iter().map(|metric| (metric.name.as_str(), metric.higher_is_better)).collect()
}

/// Adds `more`; what the two disagree on is contested for good.
fn merge<'a>(into: &mut Directions<'a>, more: &Directions<'a>) {
    for (&metric, &direction) in more {
        let known = into.entry(metric).or_insert(direction);
        if *known != direction {
            *known = None;
        }
    }
}
