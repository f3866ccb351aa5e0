//! Groups of lm-eval's task files: a list of tasks and other groups, and what is counted of them together.

use std::path::{Path, PathBuf};

use qpipe_nodes::task_file::{self, TaskFile};
use qpipe_nodes::task_group::{GroupFigure, TaskGroup, TaskGroups};
use qpipe_nodes::tasks;
use serde_json::Value as Json;

use super::error::{Code, Mistake};
use super::nearest::advice;
use super::task_files::{DEEPEST, Reader, merge};
use super::value::{Data, Entry, Value, find};

/// What a group's file may say.
const KEYS: [&str; 6] = ["group", "group_alias", "task", "aggregate_metric_list", "tag", "metadata"];

/// Reads a group and what is in it.
pub(super) struct Groups<'a, 'b> {
    pub(super) reader: &'a mut Reader<'b>,
    /// Where its tasks' files are.
    pub(super) folder: &'a Path,
    /// The group that the pipeline names: data may stand under its name.
    pub(super) outermost: &'a str,
    pub(super) groups: &'a mut TaskGroups,
}

impl Groups<'_, '_> {
    /// The tasks below the group `name` that `entries` describe; it and the groups within it are kept. What a group says of a
    /// task's own holds for all of its tasks; `over` comes from the group around it, and wins.
    pub(super) fn members(
        &mut self,
        name: &str,
        entries: &[Entry],
        over: &[Entry],
        depth: usize,
    ) -> Vec<TaskFile> {
        let of_tasks = task_file::keys();
        let (mut all, unknown): (Vec<Entry>, Vec<Entry>) = entries
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
        merge(&mut all, over.to_vec());
        let span = entries.first().map_or(self.reader.at, |entry| entry.key.span);
        if depth == DEEPEST {
            self.reader.mistakes.push(Mistake::new(Code::IncludeCycle, span, "groups contain each other"));
            return Vec::new();
        }
        let members: &[Value] = match find(entries, "task").map(|entry| &entry.value) {
            Some(Value { data: Data::List(members), .. }) => members,
            Some(one @ Value { data: Data::Text(_), .. }) => std::slice::from_ref(one),
            _ => {
                self.reader.wrong(span, "a group has a list `task`: of names of task files beside it");
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
            let (name, below) = self.member(name, member, &all, depth);
            group.children.extend(name);
            tasks.extend(below);
        }
        if self.groups.get(name).is_some_and(|known| *known != group)
            || tasks.iter().any(|task| task.task == name)
        {
            let message = format!("another group or task is called `{name}`, too");
            self.reader.mistakes.push(Mistake::new(Code::Conflict, span, message));
        }
        self.groups.insert(name.to_owned(), group);
        tasks
    }

    /// An entry of the group `parent`: its name, and the tasks below it. The file of the task or group of its name, or one in
    /// which it is named, with changes; or a group that stands right there, whose name is then `PARENT::NAME` (lm-eval).
    fn member(
        &mut self,
        parent: &str,
        member: &Value,
        over: &[Entry],
        depth: usize,
    ) -> (Option<String>, Vec<TaskFile>) {
        let (name, changes) = match &member.data {
            Data::Text(name) => (name.clone(), &[][..]),
            Data::Mapping(entries) => {
                let text = |key: &str| match find(entries, key).map(|entry| &entry.value.data) {
                    Some(Data::Text(text)) => Some(text.clone()),
                    _ => None,
                };
                match (text("group"), text("task")) {
                    (Some(name), _) if file_of(self.folder, &name).is_some() => (name, entries.as_slice()),
                    (Some(name), _) => {
                        let name = format!("{parent}::{name}");
                        let tasks = self.members(&name, entries, over, depth + 1);
                        return (Some(name), tasks);
                    }
                    (None, Some(name)) => (name, entries.as_slice()),
                    (None, None) => {
                        self.reader.wrong(member.span, "an entry without `task`");
                        return (None, Vec::new());
                    }
                }
            }
            _ => {
                self.reader.wrong(member.span, "expected the name of a task");
                return (None, Vec::new());
            }
        };
        let Some(path) = file_of(self.folder, &name) else {
            let message = format!("no file in `{}` is of the task or group `{name}`", self.folder.display());
            self.reader.wrong(member.span, &message);
            return (None, Vec::new());
        };
        let Some(mut entries) = self.reader.entries(&path, 0) else { return (None, Vec::new()) };
        let is_its_name = |entry: &Entry| ["group", "task"].contains(&entry.key.text.as_str());
        let mut changed = over.to_vec();
        merge(&mut changed, changes.iter().filter(|entry| !is_its_name(entry)).cloned().collect());
        if let Some(Data::Text(group)) = find(&entries, "group").map(|entry| entry.value.data.clone()) {
            let (own, of_tasks): (Vec<Entry>, Vec<Entry>) =
                changed.into_iter().partition(|entry| KEYS.contains(&entry.key.text.as_str()));
            merge(&mut entries, own);
            let changed = of_tasks;
            let tasks = self.members(&group, &entries, &changed, depth + 1);
            return (Some(group), tasks);
        }
        merge(&mut entries, changed);
        let task = self.reader.task(&entries, Some(self.outermost));
        (task.as_ref().map(|task| task.task.clone()), task.into_iter().collect())
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

/// The file of the task or group `name` in `folder`: called so, or with a line `task: NAME` or `group: NAME`.
fn file_of(folder: &Path, name: &str) -> Option<PathBuf> {
    let by_name = ["yaml", "yml"].map(|extension| folder.join(format!("{name}.{extension}")));
    if let Some(path) = by_name.into_iter().find(|path| path.is_file()) {
        return Some(path);
    }
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.into_iter().filter(|path| path.to_str().is_some_and(tasks::is_file)).find(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // A group's `task:` is what it contains.
        let key = if text.lines().any(|line| line.starts_with("group:")) { "group:" } else { "task:" };
        text.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| unquoted(rest.trim()) == name))
    })
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(['"', '\''])
}
