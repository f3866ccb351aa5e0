//! The task files that evaluations name: read, and put into the parameters, so that a key holds what a file says and not
//! where it lies.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use qpipe_nodes::kinds::Evaluate;
use qpipe_nodes::task_file::{PASSED_OVER, TaskFile, TaskFiles};
use qpipe_nodes::task_group::TaskGroups;
use qpipe_nodes::{Kind, ParamError, Target, kind, tasks};
use serde_json::{Map, Value as Json};

use super::error::{Code, Mistake, Mistakes};
use super::instance::Instance;
use super::nearest::advice;
use super::source::{Source, Sources, Span};
use super::task_groups::{Groups, Standing};
use super::task_index::TaskIndex;
use super::task_origins;
use super::task_text;
use super::value::{Data, Entry, Value, find, follow};
use super::yaml;

/// Files that include each other this deep go round in a circle.
pub(super) const DEEPEST: usize = 16;
/// The kind that names them, and its parameters.
const KIND: &str = Evaluate::NAME;
const TASKS: &str = "tasks";
const TASK_FILES: &str = "task_files";
const TASK_GROUPS: &str = "task_groups";

/// Reads the files among `tasks` of every evaluation; the names of their tasks take their place. `place` is where a
/// mistake in an instance is shown.
pub(super) fn fill_in(
    instances: &mut [Instance],
    place: &dyn Fn(usize) -> Span,
    sources: &mut Sources,
    mistakes: &mut Mistakes,
) {
    let (mut read, mut index_of_tasks) = (HashMap::new(), TaskIndex::default());
    for (index, instance) in instances.iter_mut().enumerate().filter(|(_, it)| it.kind.name == KIND) {
        let Some(Json::Array(named)) = instance.parsed.params.get(TASKS) else { continue };
        if !named.iter().filter_map(Json::as_str).any(tasks::is_file) {
            continue;
        }
        let mut names: Vec<String> = Vec::new();
        let (mut files, mut groups) = (TaskFiles::new(), TaskGroups::new());
        for name in named.iter().filter_map(Json::as_str) {
            if !tasks::is_file(name) {
                names.push(name.to_owned());
                continue;
            }
            let mut reader = Reader {
                at: place(index),
                pipeline: &instance.base_dir,
                sources,
                mistakes,
                read: &mut read,
                index: &mut index_of_tasks,
            };
            let mut of_file = TaskFiles::new();
            let mut tasks = reader.tasks(&instance.base_dir.join(name), &mut groups);
            instance.task_origins.extend(task_origins::taken(tasks.iter_mut()));
            for task in tasks {
                // It may stand in several groups.
                let is_known = of_file.get(&task.task).is_some_and(|known| is_same(known, &task));
                if !is_known {
                    names.push(task.task.clone());
                    of_file.insert(task.task.clone(), task);
                }
            }
            files.extend(of_file);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            let message = format!("the task `{twice}` is named twice");
            mistakes.push(Mistake::new(Code::Conflict, place(index), message));
        }
        instance.parsed.params[TASKS] = names.into();
        instance.parsed.params[TASK_FILES] = serde_json::to_value(files).unwrap_or_default();
        if !groups.is_empty() {
            instance.parsed.params[TASK_GROUPS] = serde_json::to_value(groups).unwrap_or_default();
        }
    }
}

fn is_same(one: &TaskFile, other: &TaskFile) -> bool {
    serde_json::to_value(one).ok() == serde_json::to_value(other).ok()
}

pub(super) struct Reader<'a> {
    /// Where the pipeline names the file.
    pub(super) at: Span,
    /// Where the pipeline lies.
    pub(super) pipeline: &'a Path,
    sources: &'a mut Sources,
    pub(super) mistakes: &'a mut Mistakes,
    /// What the files say that were read: a mistake in a file that many include is one mistake.
    read: &'a mut HashMap<PathBuf, Option<Vec<Entry>>>,
    pub(super) index: &'a mut TaskIndex,
}

impl Reader<'_> {
    /// The tasks of the file at `path`: one, or those of a group, which goes to `groups`, with those within it.
    fn tasks(&mut self, path: &Path, groups: &mut TaskGroups) -> Vec<TaskFile> {
        let Some(entries) = self.entries(path, 0) else { return Vec::new() };
        match find(&entries, "group").map(|entry| &entry.value) {
            None => self.task(&entries, None).into_iter().collect(),
            Some(Value { data: Data::Text(name), .. }) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                let open = vec![path.to_path_buf()];
                let group = Standing { name, folder };
                Groups { reader: self, outermost: name, groups, open }.members(&group, &entries, &[])
            }
            Some(value) => {
                self.wrong(value.span, "`group` is no name");
                Vec::new()
            }
        }
    }

    pub(super) fn task(&mut self, entries: &[Entry], group: Option<&str>) -> Option<TaskFile> {
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
        task.origins = task_origins::origins(entries, self.sources);
        task.group = group.map(str::to_owned);
        // The order of the choices counts, and that of a mapping's keys is in no key.
        if let Json::Object(choices) = &task.doc_to_choice {
            task.doc_to_choice = choices.values().cloned().collect();
        }
        Some(task)
    }

    /// What the file at `path` says, over what it includes.
    pub(super) fn entries(&mut self, path: &Path, depth: usize) -> Option<Vec<Entry>> {
        if let Some(known) = self.read.get(path) {
            return known.clone();
        }
        let text = match task_text::read(path) {
            Ok(text) => text,
            Err(error) => {
                let problem = error.words(path);
                self.mistakes.push(
                    Mistake::new(Code::Unreadable, self.at, problem)
                        .help("Paths are relative to the file that names them."),
                );
                return None;
            }
        };
        let said = self.said(path, text, depth);
        self.read.insert(path.to_path_buf(), said.clone());
        said
    }

    /// What `text` says, which is the file at `path`.
    fn said(&mut self, path: &Path, text: String, depth: usize) -> Option<Vec<Entry>> {
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let (index, source) = self.sources.add(Source::new(path.display().to_string(), folder.clone(), text));
        let begin = Span { source: index, start: 0, end: 0 };
        let before = self.mistakes.len();
        let root = yaml::parse(source.text(), index, 0, self.mistakes);
        let Some(Value { data: Data::Mapping(mut own), .. }) = root else {
            if self.mistakes.len() == before {
                self.wrong(begin, "a task file is a mapping");
            }
            return None;
        };
        if self.mistakes.len() > before {
            return None;
        }
        let mut entries = self.included(&mut own, &folder, depth)?;
        merge(&mut entries, own);
        Some(entries)
    }

    /// What `own`, which stands in `folder`, includes; the key is taken out.
    pub(super) fn included(
        &mut self,
        own: &mut Vec<Entry>,
        folder: &Path,
        depth: usize,
    ) -> Option<Vec<Entry>> {
        let Some(place) = own.iter().position(|entry| entry.key.text == "include") else {
            return Some(Vec::new());
        };
        let Entry { key, value } = own.remove(place);
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
        Some(entries)
    }

    /// A mistake of the parameters, at its place in the file.
    fn report(&mut self, entries: &[Entry], error: &ParamError) {
        let span = match (follow(entries, &error.path), error.target) {
            (Some((key, _)), Target::Key) => key,
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
            let known = error.alternatives.iter().map(String::as_str);
            // One key is qpipe's own.
            let known: Vec<&str> = known.filter(|known| !known.starts_with('@')).collect();
            mistake = advice(name, "Known keys", &known).into_iter().fold(mistake, Mistake::help);
        }
        self.mistakes.push(error.help.iter().fold(mistake, |mistake, help| mistake.help(help.clone())));
    }

    pub(super) fn wrong(&mut self, at: Span, message: &str) {
        self.mistakes.push(Mistake::new(Code::InvalidValue, at, message));
    }
}

/// Puts `over` into `entries`, in place of those of the same names.
pub(super) fn merge(entries: &mut Vec<Entry>, over: Vec<Entry>) {
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
