//! The task files that evaluations name: read, and put into the parameters, so that a key holds what a file says and not
//! where it lies.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use qpipe_nodes::task_file::{PASSED_OVER, TaskFile, TaskFiles};
use qpipe_nodes::{ParamError, Target, kind, tasks};
use serde_json::{Map, Value as Json};

use super::error::{Code, Mistake, Mistakes};
use super::include::read_text;
use super::instance::Instance;
use super::nearest::advice;
use super::source::{Source, Sources, Span};
use super::value::{Data, Entry, Key, Value, find};
use super::yaml;

/// Files that include each other this deep go round in a circle.
const DEEPEST: usize = 16;
/// What a group's file may say.
const GROUP_KEYS: [&str; 5] = ["group", "group_alias", "task", "tag", "metadata"];
/// The kind that names them, and its parameters.
const KIND: &str = "evaluate";
const TASKS: &str = "tasks";
const TASK_FILES: &str = "task_files";

/// Reads the files among `tasks` of every evaluation; the names of their tasks take their place. `place` is where a
/// mistake in an instance is shown.
pub(super) fn fill_in(
    instances: &mut [Instance],
    place: &dyn Fn(usize) -> Span,
    sources: &mut Sources,
    mistakes: &mut Mistakes,
) {
    for (index, instance) in instances.iter_mut().enumerate().filter(|(_, it)| it.kind.name == KIND) {
        let Some(Json::Array(named)) = instance.parsed.params.get(TASKS) else { continue };
        if !named.iter().filter_map(Json::as_str).any(tasks::is_file) {
            continue;
        }
        let mut names: Vec<String> = Vec::new();
        let mut files = TaskFiles::new();
        for name in named.iter().filter_map(Json::as_str) {
            if !tasks::is_file(name) {
                names.push(name.to_owned());
                continue;
            }
            let mut reader = Reader { at: place(index), sources, mistakes };
            for task in reader.tasks(&instance.base_dir.join(name)) {
                names.push(task.task.clone());
                files.insert(task.task.clone(), task);
            }
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            let message = format!("the task `{twice}` is named twice");
            mistakes.push(Mistake::new(Code::Conflict, place(index), message));
        }
        instance.parsed.params[TASKS] = names.into();
        instance.parsed.params[TASK_FILES] = serde_json::to_value(files).unwrap_or_default();
    }
}

struct Reader<'a> {
    /// Where the pipeline names the file.
    at: Span,
    sources: &'a mut Sources,
    mistakes: &'a mut Mistakes,
}

impl Reader<'_> {
    /// The tasks of the file at `path`: one, or those of a group.
    fn tasks(&mut self, path: &Path) -> Vec<TaskFile> {
        let Some(entries) = self.entries(path, 0) else { return Vec::new() };
        let Some(group) = find(&entries, "group") else {
            return self.task(&entries, None).into_iter().collect();
        };
        let Data::Text(name) = &group.value.data else {
            self.wrong(group.value.span, "`group` is no name");
            return Vec::new();
        };
        for entry in entries.iter().filter(|entry| !GROUP_KEYS.contains(&entry.key.text.as_str())) {
            let message = format!("`{}` of a group is not done", entry.key.text);
            let mistake = Mistake::new(Code::UnknownKey, entry.key.span, message);
            self.mistakes.push(
                mistake.help("Take it out: a group stands for its tasks, and has no figure of its own."),
            );
        }
        let members = find(&entries, "task").map(|entry| &entry.value);
        let Some(Data::List(members)) = members.map(|value| &value.data) else {
            self.wrong(group.value.span, "a group has a list `task`: of names of task files beside it");
            return Vec::new();
        };
        members.iter().filter_map(|member| self.member(path, name, member)).collect()
    }

    /// A task of a group: the file of its name, or one in which it is named.
    fn member(&mut self, group_file: &Path, group: &str, member: &Value) -> Option<TaskFile> {
        let (name, changes) = match &member.data {
            Data::Text(name) => (name.clone(), &[][..]),
            Data::Mapping(entries) => match find(entries, "task").map(|entry| &entry.value.data) {
                Some(Data::Text(name)) => (name.clone(), entries.as_slice()),
                _ => {
                    self.wrong(member.span, "an entry without `task`");
                    return None;
                }
            },
            _ => {
                self.wrong(member.span, "expected the name of a task");
                return None;
            }
        };
        let folder = group_file.parent().unwrap_or(Path::new("."));
        let Some(path) = file_of(folder, &name) else {
            let message = format!("no file beside `{}` is of the task `{name}`", group_file.display());
            self.wrong(member.span, &message);
            return None;
        };
        let mut entries = self.entries(&path, 0)?;
        merge(&mut entries, changes.to_vec());
        self.task(&entries, Some(group))
    }

    fn task(&mut self, entries: &[Entry], group: Option<&str>) -> Option<TaskFile> {
        let counted = entries.iter().filter(|entry| !PASSED_OVER.contains(&entry.key.text.as_str()));
        let object: Map<String, Json> =
            counted.map(|entry| (entry.key.text.clone(), entry.value.to_json())).collect();
        let (task, mut errors) = kind::read::<TaskFile>(Json::Object(object));
        if let Some(task) = &task {
            // What is absent may be what a wrong key was meant to be.
            let is_misspelt = errors.iter().any(|error| error.target == Target::Key);
            let others = task.check().into_iter();
            errors.extend(others.filter(|error| !(is_misspelt && error.target == Target::Missing)));
        }
        for error in &errors {
            self.report(entries, error);
        }
        let mut task = task.filter(|_| errors.is_empty())?;
        task.group = group.map(str::to_owned);
        // The order of the choices counts, and that of a mapping's keys is in no key.
        if let Json::Object(choices) = &task.doc_to_choice {
            task.doc_to_choice = choices.values().cloned().collect();
        }
        Some(task)
    }

    /// What the file at `path` says, over what it includes.
    fn entries(&mut self, path: &Path, depth: usize) -> Option<Vec<Entry>> {
        let text = match read_text(path) {
            Ok((_, text)) => text,
            Err(error) => {
                let problem = error.words(path);
                self.mistakes.push(
                    Mistake::new(Code::Unreadable, self.at, problem)
                        .help("Paths are relative to the file that names them."),
                );
                return None;
            }
        };
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let (index, source) = self.sources.add(Source::new(path.display().to_string(), folder.clone(), text));
        let begin = Span { source: index, start: 0, end: 0 };
        let before = self.mistakes.len();
        let root = yaml::parse(source.text(), index, 0, self.mistakes);
        let Some(Value { data: Data::Mapping(own), .. }) = root else {
            if self.mistakes.len() == before {
                self.wrong(begin, "a task file is a mapping");
            }
            return None;
        };
        if self.mistakes.len() > before {
            return None;
        }
        let (included, own): (Vec<Entry>, Vec<Entry>) =
            own.into_iter().partition(|entry| entry.key.text == "include");
        let Some(Entry { key, value }) = included.into_iter().next() else { return Some(own) };
        if depth == DEEPEST {
            self.mistakes.push(Mistake::new(Code::IncludeCycle, key.span, "files include each other"));
            return None;
        }
        let files: Option<Vec<String>> = match value.data {
            Data::Text(file) => Some(vec![file]),
            Data::List(list) => list.iter().map(|file| as_text(file.to_json())).collect(),
            _ => None,
        };
        let Some(files) = files else {
            self.wrong(value.span, "expected the path of a file, or a list of such");
            return None;
        };
        let mut entries = Vec::new();
        self.at = key.span;
        for file in files {
            merge(&mut entries, self.entries(&folder.join(file), depth + 1)?);
        }
        merge(&mut entries, own);
        Some(entries)
    }

    /// A mistake of the parameters, at its place in the file.
    fn report(&mut self, entries: &[Entry], error: &ParamError) {
        let mut place: Option<(&Key, &Value)> = None;
        let mut list: &[Value] = &[];
        let mut here = entries;
        for part in &error.path {
            if let Some(entry) = find(here, part) {
                place = Some((&entry.key, &entry.value));
            } else if let Some(value) = part.parse::<usize>().ok().and_then(|index| list.get(index)) {
                place = place.map(|(key, _)| (key, value));
            } else {
                break;
            }
            here = place.map_or(&[], |(_, value)| value.entries());
            list = match place.map(|(_, value)| &value.data) {
                Some(Data::List(list)) => list,
                _ => &[],
            };
        }
        let span = match (place, error.target) {
            (Some((key, _)), Target::Key) => key.span,
            (Some((_, value)), _) => value.span,
            (None, _) => entries.first().map_or(self.at, |entry| entry.key.span),
        };
        let code = match error.target {
            Target::Key => Code::UnknownKey,
            Target::Value => Code::InvalidValue,
            Target::Missing => Code::MissingKey,
        };
        let mut mistake = Mistake::new(code, span, error.message.clone());
        if let (Target::Key, Some(name)) = (error.target, error.path.last()) {
            let known: Vec<&str> = error.alternatives.iter().map(String::as_str).collect();
            mistake = advice(name, "Known keys", &known).into_iter().fold(mistake, Mistake::help);
        }
        self.mistakes.push(error.help.iter().fold(mistake, |mistake, help| mistake.help(help.clone())));
    }

    fn wrong(&mut self, at: Span, message: &str) {
        self.mistakes.push(Mistake::new(Code::InvalidValue, at, message));
    }
}

/// Puts `over` into `entries`, in place of those of the same names.
fn merge(entries: &mut Vec<Entry>, over: Vec<Entry>) {
    for entry in over {
        match entries.iter_mut().find(|known| known.key.text == entry.key.text) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
    }
}

fn as_text(value: Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text),
        _ => None,
    }
}

/// The file of the task `name` in `folder`: called so, or with a line `task: NAME`.
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
        text.lines().any(|line| line.strip_prefix("task:").is_some_and(|rest| unquoted(rest.trim()) == name))
    })
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(['"', '\''])
}
