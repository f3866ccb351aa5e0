//! The members of a group of lm-eval's: names of tasks, groups and tags, with or without settings, and tasks and groups that
//! stand right there.

use std::path::Path;

use qpipe_nodes::task_file::TaskFile;

use super::error::{Code, Mistake};
use super::source::Span;
use super::task_files::merge;
use super::task_groups::{Groups, KEYS, Standing};
use super::task_index::{Found, here};
use super::value::{Data, Entry, Value, find};

/// One of these makes an entry a task of its own, and not one of a file with settings.
const OF_A_TASK: [&str; 5] = ["include", "dataset_path", "output_type", "doc_to_text", "doc_to_target"];
/// What only Python can follow.
const PROMPTS: &str = "use_prompt";

/// A task or a group within a group.
pub(super) struct Below {
    pub(super) name: String,
    /// The task, or those of the group.
    pub(super) tasks: Vec<TaskFile>,
}

/// An entry of a group that names something: the name and its place, and what it says besides.
#[derive(Clone, Copy)]
struct Named<'a> {
    name: &'a str,
    span: Span,
    said: &'a [Entry],
}

impl Groups<'_, '_> {
    /// What an entry of the group `parent` stands for, `over` being the group's settings. A name is that of the nearest file;
    /// an entry without one is a group or a task right there, called `PARENT::NAME` (lm-eval).
    pub(super) fn member(&mut self, parent: &Standing<'_>, member: &Value, over: &[Entry]) -> Vec<Below> {
        if let Data::Text(name) = &member.data {
            return self.named(parent, Named { name, span: member.span, said: &[] }, over);
        }
        let Data::Mapping(said) = &member.data else {
            self.reader.wrong(member.span, "expected the name of a task, a group or a tag");
            return Vec::new();
        };
        if let Some(prompts) = find(said, PROMPTS) {
            self.needs_python(prompts);
            return Vec::new();
        }
        let (group, task) = (find(said, "group"), find(said, "task"));
        let Some(Entry { value, .. }) = group.or(task) else {
            self.reader.wrong(member.span, "an entry has a `task` or a `group`");
            return Vec::new();
        };
        let Data::Text(name) = &value.data else {
            self.reader.wrong(value.span, "expected the name of a task or a group");
            return Vec::new();
        };
        let named = Named { name, span: value.span, said };
        let stands_here = match group {
            Some(_) => task.is_some(),
            None => said.iter().any(|entry| OF_A_TASK.contains(&entry.key.text.as_str())),
        };
        if !stands_here || !matches!(self.find(parent, name), Found::Nothing { .. }) {
            return self.named(parent, named, over);
        }
        match group {
            Some(_) => self.group_right_there(parent, named, over),
            None => self.task_right_there(parent, named, over).into_iter().collect(),
        }
    }

    fn find(&mut self, parent: &Standing<'_>, name: &str) -> Found {
        self.reader.index.find(name, parent.folder, self.reader.pipeline)
    }

    fn needs_python(&mut self, prompts: &Entry) {
        let message = format!("`{PROMPTS}` names prompts of the Python package promptsource, which is not run here");
        let mistake = Mistake::new(Code::InvalidValue, prompts.key.span, message);
        self.reader.mistakes.push(mistake.help("Write the prompt as a Jinja template: `doc_to_text`, `doc_to_target`."));
    }

    fn group_right_there(&mut self, parent: &Standing<'_>, group: Named<'_>, over: &[Entry]) -> Vec<Below> {
        let name = format!("{}::{}", parent.name, group.name);
        let standing = Standing { name: &name, folder: parent.folder };
        let tasks = self.members(&standing, group.said, over);
        vec![Below { name, tasks }]
    }

    /// The settings of the groups around it win over what the task includes, and not over what it says itself.
    fn task_right_there(&mut self, parent: &Standing<'_>, task: Named<'_>, over: &[Entry]) -> Option<Below> {
        let mut own = task.said.to_vec();
        let mut entries = self.reader.included(&mut own, parent.folder, 0)?;
        merge(&mut entries, over.to_vec());
        for entry in own.iter_mut().filter(|entry| entry.key.text == "task") {
            entry.value.data = Data::Text(format!("{}::{}", parent.name, task.name));
        }
        merge(&mut entries, own);
        self.task(&entries)
    }

    fn task(&mut self, entries: &[Entry]) -> Option<Below> {
        let task = self.reader.task(entries, Some(self.outermost))?;
        Some(Below { name: task.task.clone(), tasks: vec![task] })
    }

    /// What the files are of that `entry` names. Its settings, and those around it, hold for each task of a group or a tag.
    fn named(&mut self, parent: &Standing<'_>, entry: Named<'_>, over: &[Entry]) -> Vec<Below> {
        let files = match self.find(parent, entry.name) {
            Found::File(path) => vec![path],
            Found::Tag(paths) => paths,
            Found::Two(one, other) => {
                let (name, one, other) = (entry.name, one.display(), other.display());
                let message = format!("`{one}` and `{other}` are both of `{name}`, and equally near");
                self.reader.mistakes.push(Mistake::new(Code::Ambiguous, entry.span, message));
                return Vec::new();
            }
            Found::Nothing { within, too_large } => {
                let (name, within) = (entry.name, here(&within).display());
                let message = format!("no file in or below `{within}` is of a task, group or tag `{name}`");
                let mut mistake = Mistake::new(Code::InvalidValue, entry.span, message);
                if let Some(folder) = too_large {
                    let folder = here(&folder).display();
                    mistake = mistake.help(format!("There are too many files in `{folder}` to search it."));
                }
                self.reader.mistakes.push(mistake);
                return Vec::new();
            }
        };
        let is_its_name = |entry: &Entry| ["group", "task"].contains(&entry.key.text.as_str());
        let mut changes = over.to_vec();
        merge(&mut changes, entry.said.iter().filter(|entry| !is_its_name(entry)).cloned().collect());
        files.iter().filter_map(|path| self.of_file(path, &changes, entry.span)).collect()
    }

    /// What the file at `path` is of, with `changes`; it is named at `span`.
    fn of_file(&mut self, path: &Path, changes: &[Entry], span: Span) -> Option<Below> {
        let mut entries = self.reader.entries(path, 0)?;
        let Some(Data::Text(name)) = find(&entries, "group").map(|entry| entry.value.data.clone()) else {
            merge(&mut entries, changes.to_vec());
            return self.task(&entries);
        };
        if self.open.iter().any(|open| open == path) {
            self.reader.mistakes.push(Mistake::new(Code::IncludeCycle, span, "groups contain each other"));
            return None;
        }
        let of_group = |entry: &Entry| KEYS.contains(&entry.key.text.as_str());
        let (own, of_tasks): (Vec<Entry>, Vec<Entry>) = changes.iter().cloned().partition(of_group);
        merge(&mut entries, own);
        self.open.push(path.to_path_buf());
        let standing = Standing { name: &name, folder: path.parent().unwrap_or(Path::new("")) };
        let tasks = self.members(&standing, &entries, &of_tasks);
        self.open.pop();
        Some(Below { name, tasks })
    }
}
