//! The members of a group of lm-eval's: names of tasks, groups and tags, with or without settings, and tasks and groups that
//! stand right there.

use std::path::{Path, PathBuf};

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
        let message = format!("`{PROMPTS}` takes prompts of Python's promptsource, which is not run here");
        let mistake = Mistake::new(Code::InvalidValue, prompts.key.span, message);
        let help = "Write the prompt as Jinja templates, `doc_to_text` and `doc_to_target`.";
        self.reader.mistakes.push(mistake.help(help));
    }

    fn group_right_there(&mut self, parent: &Standing<'_>, group: Named<'_>, over: &[Entry]) -> Vec<Below> {
        let name = format!("{}::{}", parent.name, group.name);
        let standing = Standing { name: &name, folder: parent.folder };
        let tasks = self.members(&standing, group.said, over);
        vec![Below { name, tasks }]
    }

    /// The settings of the groups around it win over what the task includes, and not over what it says itself.
    fn task_right_there(&mut self, parent: &Standing<'_>, task: Named<'_>, over: &[Entry]) -> Option<Below> {
        // The name of a task names files.
        if parent.name.starts_with('.') || parent.name.contains(['/', '\\']) {
            let message = format!("in a group called `{}` no task can stand", parent.name);
            self.reader.mistakes.push(Mistake::new(Code::InvalidName, task.span, message));
            return None;
        }
        let mut own = task.said.to_vec();
        let mut entries = self.reader.included(&mut own, parent.folder, 0)?;
        merge(&mut entries, over.to_vec());
        merge(&mut entries, own);
        let mut task = self.reader.task(&entries, Some(self.outermost))?;
        task.task = format!("{}::{}", parent.name, task.task);
        Some(Below { name: task.task.clone(), tasks: vec![task] })
    }

    fn task(&mut self, entries: &[Entry]) -> Option<Below> {
        let task = self.reader.task(entries, Some(self.outermost))?;
        Some(Below { name: task.task.clone(), tasks: vec![task] })
    }

    /// What the files are of that `entry` names. Its settings, and those around it, hold for each task of a group or a tag.
    fn named(&mut self, parent: &Standing<'_>, entry: Named<'_>, over: &[Entry]) -> Vec<Below> {
        let is_its_name = |entry: &Entry| ["group", "task"].contains(&entry.key.text.as_str());
        let mut changes = over.to_vec();
        merge(&mut changes, entry.said.iter().filter(|entry| !is_its_name(entry)).cloned().collect());
        let files = self.files_of(parent, entry);
        files.iter().filter_map(|path| self.of_file(path, &changes, entry.span)).collect()
    }

    fn files_of(&mut self, parent: &Standing<'_>, Named { name, span, .. }: Named<'_>) -> Vec<PathBuf> {
        let mistake = match self.find(parent, name) {
            Found::File(path) => return vec![path],
            Found::Tag(paths) => return paths,
            Found::Two(one, other) => {
                let (one, other) = (one.display(), other.display());
                let message = format!("`{one}` and `{other}` are both of `{name}`, and equally near");
                Mistake::new(Code::Ambiguous, span, message).help("Give one of the two another name.")
            }
            Found::Nothing { within, too_large } => {
                let within = here(&within).display();
                let message = format!("no file in or below `{within}` is of a task, group or tag `{name}`");
                let help = too_large.map(|folder| {
                    format!("There are too many files in `{}` to search it.", here(&folder).display())
                });
                help.into_iter().fold(Mistake::new(Code::InvalidValue, span, message), Mistake::help)
            }
        };
        self.reader.mistakes.push(mistake);
        Vec::new()
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::load::Pipeline;

    const PIPELINE: &str = "version: 1
name: x
nodes:
  base: { kind: download, model: m }
  data: { kind: download, data: d }
  scores: { kind: evaluate, model: base, data: data, tasks: [tasks/g.yaml] }
";

    /// Two tasks and settings for them: one includes `base`, one is complete and in a group of its own.
    const RIGHT_THERE: &str = "group: g
num_fewshot: 9
description: group's
task:
  - task: t
    include: base
    num_fewshot: 2
  - group: i
    task:
      - { task: u, doc_to_text: q, doc_to_target: a, test_split: x }
";

    /// A task that is complete, but for what `rest` says.
    fn task(rest: &str) -> String {
        format!("{rest}\ntest_split: test\ndoc_to_text: q\ndoc_to_target: a\n")
    }

    /// The parameters of an evaluation of `tasks/g.yaml`, which stands beside `files`.
    fn read(files: &[(&str, String)]) -> Result<Json, String> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join("tasks").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let file = folder.path().join("study.yaml");
        std::fs::write(&file, PIPELINE).unwrap();
        let prefix = format!("{}/tasks/", folder.path().display());
        let pipeline =
            Pipeline::load(&file, &[]).map_err(|errors| errors.to_string().replace(&prefix, ""))?;
        let scores = pipeline.instances.iter().find(|instance| instance.id == "scores").unwrap();
        Ok(scores.parsed.params.clone())
    }

    #[test]
    fn a_tag_stands_for_its_tasks() {
        let files = [
            ("g.yaml", "group: g\ntask: [own, mytag, t2]\n".to_owned()),
            ("t2.yaml", task("task: t2\ntag: mytag")),
            ("t1.yaml", task("task: t1\ninclude: tags")),
            ("tags", "tag: [other, mytag]\n".to_owned()),
            ("own.yaml", task("task: own\ntag: other")),
        ];
        let params = read(&files).unwrap();
        assert_eq!(params["tasks"], json!(["own", "t1", "t2"]));
        assert_eq!(params["task_groups"], json!({ "g": { "children": ["own", "t1", "t2"] } }));
    }

    #[test]
    fn settings_hold_for_each_task_of_a_tag_and_of_a_group() {
        let files = [
            (
                "g.yaml",
                "group: g\ntask: [{ task: mytag, num_fewshot: 3 }, { task: h, num_fewshot: 4 }]".to_owned(),
            ),
            ("t1.yaml", task("task: t1\ntag: mytag\nnum_fewshot: 1")),
            ("t2.yaml", task("task: t2\ntag: mytag")),
            ("h.yaml", "group: h\ntask: [t3]\n".to_owned()),
            ("t3.yaml", task("task: t3")),
        ];
        let params = read(&files).unwrap();
        assert_eq!(params["tasks"], json!(["t1", "t2", "t3"]));
        let shots = ["t1", "t2", "t3"].map(|name| params["task_files"][name]["num_fewshot"].clone());
        assert_eq!(shots, [3, 3, 4].map(Json::from));
    }

    #[test]
    fn members_may_lie_in_other_folders_and_theirs_beside_them() {
        let files = [
            ("g.yaml", "group: g\ntask: [inner, far]\n".to_owned()),
            ("sub/inner.yaml", "group: inner\ntask: [t]\n".to_owned()),
            ("sub/t.yaml", task("task: t\ndescription: below")),
            ("sub/sub/far.yaml", task("task: far")),
            ("other/t.yaml", task("task: t\ndescription: elsewhere")),
        ];
        let params = read(&files).unwrap();
        assert_eq!(params["tasks"], json!(["t", "far"]));
        assert_eq!(params["task_files"]["t"]["description"], "below");
        assert_eq!(params["task_groups"]["g"]["children"], json!(["inner", "far"]));
    }

    #[test]
    fn tasks_may_stand_in_the_group() {
        let files = [
            ("g.yaml", RIGHT_THERE.to_owned()),
            ("base", task("task: base\ndescription: base's\ntask_alias: base's")),
        ];
        let params = read(&files).unwrap();
        assert_eq!(params["tasks"], json!(["g::t", "g::i::u"]));
        assert_eq!(params["task_groups"]["g"]["children"], json!(["g::t", "g::i"]));
        assert_eq!(params["task_groups"]["g::i"]["children"], json!(["g::i::u"]));
        let task = &params["task_files"]["g::t"];
        assert_eq!(
            (&task["num_fewshot"], &task["task_alias"], &task["group"]),
            (&json!(2), &json!("base's"), &json!("g"))
        );
        assert_eq!(task["description"], "group's");
        assert_eq!(params["task_files"]["g::i::u"]["num_fewshot"], 9);
    }

    #[test]
    fn names_of_tasks_are_names_of_files() {
        let within = |group: &str| {
            let group = format!(
                "group: {group}\ntask: [{{ task: t, doc_to_text: q, doc_to_target: a, test_split: x }}]\n"
            );
            read(&[("g.yaml", group)]).map(|params| params["tasks"][0].clone())
        };
        assert_eq!(within("our group"), Ok(json!("our group::t")));
        let refused = "g.yaml:2:16: in a group called `../g` no task can stand";
        assert_eq!(within("../g"), Err(refused.to_owned()));
    }

    #[test]
    fn an_entry_with_settings_and_no_file_is_a_slip() {
        let error = read(&[("g.yaml", "group: g\ntask: [{ task: t, num_fewshot: 2 }]\n".to_owned())]);
        assert!(error.is_err_and(|error| error.starts_with("g.yaml:2:16: no file in or below")));
    }
}
