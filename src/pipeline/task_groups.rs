//! Groups of lm-eval's task files: a list of tasks and other groups, and what is counted of them together.

use std::path::{Path, PathBuf};

use qpipe_nodes::task_file::{self, TaskFile};
use qpipe_nodes::task_group::{GroupFigure, TaskGroup, TaskGroups};
use serde_json::Value as Json;

use super::error::{Code, Mistake};
use super::nearest::advice;
use super::source::Span;
use super::task_files::{Reader, merge};
use super::value::{Data, Entry, Value, find};

/// What a group's file may say.
pub(super) const KEYS: [&str; 6] =
    ["group", "group_alias", "task", "aggregate_metric_list", "tag", "metadata"];

/// Reads a group and what is in it.
pub(super) struct Groups<'a, 'b> {
    pub(super) reader: &'a mut Reader<'b>,
    /// The group that the pipeline names: data may stand under its name.
    pub(super) outermost: &'a str,
    pub(super) groups: &'a mut TaskGroups,
    /// The files of the groups that are being read, outermost first.
    pub(super) open: Vec<PathBuf>,
}

/// A group, and the folder that its members are looked for from.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    pub(super) name: &'a str,
    pub(super) folder: &'a Path,
}

impl Groups<'_, '_> {
    /// The tasks below the group that `entries` describe; it and the groups within it are kept. What a group says of a task's
    /// own holds for all of its tasks; `over` comes from the group around it, and wins.
    pub(super) fn members(
        &mut self,
        standing: &Standing<'_>,
        entries: &[Entry],
        over: &[Entry],
    ) -> Vec<TaskFile> {
        let mut settings = self.settings(entries);
        merge(&mut settings, over.to_vec());
        let span = entries.first().map_or(self.reader.at, |entry| entry.key.span);
        let members: &[Value] = match find(entries, "task").map(|entry| &entry.value) {
            Some(Value { data: Data::List(members), .. }) => members,
            Some(one @ Value { data: Data::Text(_), .. }) => std::slice::from_ref(one),
            _ => {
                self.reader.wrong(span, "a group has a list `task`: of tasks, groups and tags");
                return Vec::new();
            }
        };
        let mut group = TaskGroup {
            alias: find(entries, "group_alias")
                .and_then(|entry| entry.value.to_json().as_str().map(str::to_owned)),
            version: find(entries, "metadata")
                .map_or(Json::Null, |entry| entry.value.to_json()["version"].clone()),
            children: Vec::new(),
            figures: self.figures(entries),
        };
        let mut tasks = Vec::new();
        for member in members {
            for below in self.member(standing, member, &settings) {
                // A task may be named itself and by a tag.
                if !group.children.contains(&below.name) {
                    group.children.push(below.name);
                }
                tasks.extend(below.tasks);
            }
        }
        self.keep(standing.name, group, &tasks, span);
        tasks
    }

    /// What a group says of its tasks.
    fn settings(&mut self, entries: &[Entry]) -> Vec<Entry> {
        let of_tasks = task_file::keys();
        let (settings, unknown): (Vec<Entry>, Vec<Entry>) = entries
            .iter()
            .filter(|entry| !KEYS.contains(&entry.key.text.as_str()))
            .cloned()
            .partition(|entry| of_tasks.contains(&entry.key.text));
        for entry in unknown {
            let message = format!("unknown key `{}` of a group", entry.key.text);
            let mistake = Mistake::new(Code::UnknownKey, entry.key.span, message);
            let advice = advice(&entry.key.text, "Known keys", &KEYS).into_iter();
            self.reader.mistakes.push(advice.fold(mistake, Mistake::help));
        }
        settings
    }

    fn keep(&mut self, name: &str, group: TaskGroup, tasks: &[TaskFile], span: Span) {
        let is_other = self.groups.get(name).is_some_and(|known| *known != group);
        if is_other || tasks.iter().any(|task| task.task == name) {
            let message = format!("another group or task is called `{name}`, too");
            self.reader.mistakes.push(Mistake::new(Code::Conflict, span, message));
        }
        self.groups.insert(name.to_owned(), group);
    }

    /// What is counted of all tasks of the group together.
    fn figures(&mut self, entries: &[Entry]) -> Vec<GroupFigure> {
        let listed: &[Value] = match find(entries, "aggregate_metric_list").map(|entry| &entry.value) {
            None => &[],
            Some(Value { data: Data::List(list), .. }) => list,
            Some(one) => std::slice::from_ref(one),
        };
        let mut figures = Vec::new();
        for value in listed {
            match serde_json::from_value(value.to_json()) {
                Ok(figure) => figures.push(figure),
                Err(error) => self.reader.wrong(value.span, &error.to_string()),
            }
        }
        figures
    }
}
