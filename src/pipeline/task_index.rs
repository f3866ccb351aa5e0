//! Finds task files by what they are of: the task or the group that they describe, or the tags of their tasks.
//!
//! lm-eval has one folder of tasks and an index of all of it. Here a group's file may lie anywhere, and what is nearest to it
//! counts: what lies beside it, then below its folder, then in or below the folders around it. They are at most
//! [`MOST_LEVELS`] and end at one called `tasks` or at the pipeline's own; a folder that holds more than [`MOST_ENTRIES`]
//! files is no folder of tasks. A tag stands for all tasks that carry it in the nearest of these places. Linked and
//! hidden folders are not entered. Every file is looked at once a run.

use std::collections::{BTreeMap, HashMap};
use std::fs::DirEntry;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use qpipe_nodes::tasks;

use super::task_files::DEEPEST;
use super::task_text;
use super::value::{Data, Value, find};

/// So many folders around a group's are searched.
const MOST_LEVELS: usize = 3;
/// Folders with more in them are not searched.
const MOST_ENTRIES: usize = 50_000;
/// Larger files are data.
const LARGEST_FILE: u64 = 4 << 20;
/// What a heading comes from.
const KEYS: [&str; 4] = ["task", "group", "tag", "class"];
/// The name of a folder that holds all tasks.
const ALL_TASKS: &str = "tasks";

/// What a name stands for.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// A task or a group: its file.
    File(PathBuf),
    /// A tag: its tasks' files, by the tasks' names.
    Tag(Vec<PathBuf>),
    /// Two files, equally near.
    Two(PathBuf, PathBuf),
    /// Nothing.
    Nothing {
        /// The outermost folder that was searched.
        within: PathBuf,
        /// A folder that holds too much to be searched.
        too_large: Option<PathBuf>,
    },
}

/// What a file is of.
#[derive(Debug)]
struct Heading {
    /// Its task or its group.
    name: String,
    /// The tags of its task.
    tags: Vec<String>,
}

/// A file that is of a task or a group.
#[derive(Debug)]
struct Headed {
    path: PathBuf,
    heading: Heading,
}

/// One folder.
#[derive(Debug, Default)]
struct Folder {
    files: Vec<Headed>,
    folders: Vec<PathBuf>,
    entries: usize,
}

/// What lies in the folders that were searched.
#[derive(Debug, Default)]
pub(super) struct TaskIndex {
    folders: HashMap<PathBuf, Rc<Folder>>,
    /// `None`: too much.
    trees: HashMap<PathBuf, Option<Rc<Tree>>>,
    /// The files that others include.
    included: HashMap<PathBuf, Keys>,
}

/// A folder with all below it: how far below, the nearest first.
type Tree = Vec<(usize, Rc<Folder>)>;
/// What a file says under [`KEYS`].
type Keys = BTreeMap<&'static str, Data>;

impl TaskIndex {
    /// What `name` stands for in a file in `folder`; the pipeline lies in `pipeline`.
    pub(super) fn find(&mut self, name: &str, folder: &Path, pipeline: &Path) -> Found {
        let beside = vec![(0, self.folder(folder))];
        if let Some(found) = named(name, &beside) {
            return found;
        }
        let (mut within, mut too_large) = (folder.to_path_buf(), None);
        for place in around(folder, pipeline) {
            let Some(tree) = self.tree(&place) else {
                too_large = Some(place);
                break;
            };
            if let Some(found) = named(name, &tree).or_else(|| tagged(name, &tree)) {
                return found;
            }
            within = place;
        }
        // A file that cannot be read is known by its own name only: whoever reads it says why.
        let called = ["yaml", "yml"].map(|extension| folder.join(format!("{name}.{extension}")));
        match called.into_iter().find(|path| path.is_file()) {
            Some(path) => Found::File(path),
            None => Found::Nothing { within, too_large },
        }
    }

    fn tree(&mut self, top: &Path) -> Option<Rc<Tree>> {
        if let Some(known) = self.trees.get(top) {
            return known.clone();
        }
        let tree = self.walk(top).map(Rc::new);
        self.trees.insert(top.to_path_buf(), tree.clone());
        tree
    }

    fn walk(&mut self, top: &Path) -> Option<Tree> {
        let mut tree = vec![(0, self.folder(top))];
        let mut entries = tree[0].1.entries;
        if entries > MOST_ENTRIES {
            return None;
        }
        let mut next = 0;
        while let Some((depth, folder)) = tree.get(next).cloned() {
            for path in &folder.folders {
                let below = self.folder(path);
                entries += below.entries;
                if entries > MOST_ENTRIES {
                    return None;
                }
                tree.push((depth + 1, below));
            }
            next += 1;
        }
        Some(tree)
    }

    fn folder(&mut self, path: &Path) -> Rc<Folder> {
        if let Some(known) = self.folders.get(path) {
            return Rc::clone(known);
        }
        let mut folder = Folder::default();
        let listed = std::fs::read_dir(here(path)).into_iter().flatten().flatten();
        let mut listed: Vec<DirEntry> = listed.take(MOST_ENTRIES + 1).collect();
        listed.sort_by_key(DirEntry::file_name);
        folder.entries = listed.len();
        if listed.len() > MOST_ENTRIES {
            // Which ones were listed depends on the file system.
            listed.clear();
        }
        for entry in listed {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = path.join(name);
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !name.starts_with('.') && name != "__pycache__" {
                    folder.folders.push(path);
                }
            } else if tasks::is_file(name)
                && let Some(heading) = self.heading(&path)
            {
                folder.files.push(Headed { path, heading });
            }
        }
        let folder = Rc::new(folder);
        self.folders.insert(path.to_path_buf(), Rc::clone(&folder));
        folder
    }

    /// What the file at `path` is of. `None`: of neither a task nor a group.
    fn heading(&mut self, path: &Path) -> Option<Heading> {
        let keys = self.keys(path, 0)?;
        // A task in Python may say which groups it is in.
        let is_group = keys.contains_key("group") && !keys.contains_key("class");
        let Some(Data::Text(name)) = keys.get(if is_group { "group" } else { "task" }) else { return None };
        let tags = match keys.get("tag") {
            _ if is_group => Vec::new(),
            Some(Data::Text(tag)) => vec![tag.clone()],
            Some(Data::List(tags)) => tags.iter().filter_map(text).collect(),
            _ => Vec::new(),
        };
        Some(Heading { name: name.clone(), tags })
    }

    /// What the file at `path` says under [`KEYS`], over what it includes.
    fn keys(&mut self, path: &Path, depth: usize) -> Option<Keys> {
        if depth == DEEPEST || std::fs::metadata(path).ok()?.len() > LARGEST_FILE {
            return None;
        }
        let root = task_text::glance(path)?;
        let mut keys = Keys::new();
        let files = match find(root.entries(), "include").map(|entry| &entry.value) {
            Some(Value { data: Data::List(files), .. }) => files.iter().filter_map(text).collect(),
            Some(file) => text(file).into_iter().collect(),
            None => Vec::new(),
        };
        for file in files {
            let file = path.parent().unwrap_or(Path::new("")).join(file);
            if !self.included.contains_key(&file) {
                let said = self.keys(&file, depth + 1).unwrap_or_default();
                self.included.insert(file.clone(), said);
            }
            keys.extend(self.included[&file].clone());
        }
        for key in KEYS {
            keys.extend(find(root.entries(), key).map(|entry| (key, entry.value.data.clone())));
        }
        Some(keys)
    }
}

/// The file of the task or group `name` that is nearest to the top of `tree`.
fn named(name: &str, tree: &Tree) -> Option<Found> {
    let mut files = files(tree).filter(|(_, file)| file.heading.name == name);
    let (depth, nearest) = files.next()?;
    match files.next() {
        Some((other, file)) if other == depth => Some(Found::Two(nearest.path.clone(), file.path.clone())),
        _ => Some(Found::File(nearest.path.clone())),
    }
}

/// The files of the tasks in `tree` that carry `tag`, in the order of lm-eval.
fn tagged(tag: &str, tree: &Tree) -> Option<Found> {
    let mut tasks: BTreeMap<&str, (usize, &Path)> = BTreeMap::new();
    for (depth, file) in files(tree).filter(|(_, file)| file.heading.tags.iter().any(|known| known == tag)) {
        let (nearest, path) = *tasks.entry(&file.heading.name).or_insert((depth, &file.path));
        if nearest == depth && path != file.path {
            return Some(Found::Two(path.to_path_buf(), file.path.clone()));
        }
    }
    let files: Vec<PathBuf> = tasks.into_values().map(|(_, path)| path.to_path_buf()).collect();
    (!files.is_empty()).then_some(Found::Tag(files))
}

fn files(tree: &Tree) -> impl Iterator<Item = (usize, &Headed)> {
    tree.iter().flat_map(|(depth, folder)| folder.files.iter().map(|file| (*depth, file)))
}

/// `folder` and those around it, as far as they are searched.
fn around(folder: &Path, pipeline: &Path) -> Vec<PathBuf> {
    let real = |path: &Path| here(path).canonicalize().ok();
    let outermost = real(pipeline);
    let everything = [Some(PathBuf::from("/")), Some(std::env::temp_dir()), std::env::home_dir()];
    let everything: Vec<PathBuf> = everything.into_iter().flatten().filter_map(|path| real(&path)).collect();
    let mut places = vec![folder.to_path_buf()];
    let mut last = real(folder);
    while let Some(inner) = last
        && places.len() <= MOST_LEVELS
        && outermost.as_ref() != Some(&inner)
        && inner.file_name().is_none_or(|name| name != ALL_TASKS)
    {
        let up = parent(&places[places.len() - 1]);
        last = real(&up).filter(|up| !everything.contains(up));
        places.extend(last.is_some().then_some(up));
    }
    places
}

/// The folder around `path`, in its own words where these have one.
fn parent(path: &Path) -> PathBuf {
    match (path.components().next_back(), path.parent()) {
        (Some(Component::Normal(_)), Some(parent)) => parent.to_path_buf(),
        _ => path.join(".."),
    }
}

/// `path` as something that can be opened and shown: the folder of `file` is an empty path.
pub(super) fn here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn text(value: &Value) -> Option<String> {
    match &value.data {
        Data::Text(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// What `name` is to a file in `inner`, with paths below the folder that holds all files.
    fn found(files: &[(&str, &str)], inner: &str, name: &str) -> Found {
        let all = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = all.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let short = |path: PathBuf| path.strip_prefix(all.path()).unwrap().to_path_buf();
        match TaskIndex::default().find(name, &all.path().join(inner), Path::new("/nowhere")) {
            Found::File(path) => Found::File(short(path)),
            Found::Tag(paths) => Found::Tag(paths.into_iter().map(short).collect()),
            Found::Two(one, other) => Found::Two(short(one), short(other)),
            Found::Nothing { within, too_large } => {
                Found::Nothing { within: short(within), too_large: too_large.map(short) }
            }
        }
    }

    fn file(path: &str) -> Found {
        Found::File(path.into())
    }

    #[test]
    fn the_nearest_file_counts() {
        let files = [
            ("tasks/all/x.yaml", "task: t"),
            ("tasks/all/below/y.yaml", "task: u"),
            ("tasks/all/deep/er/y.yaml", "task: u"),
            ("tasks/other/z.yaml", "\"task\": 'v'"),
            ("tasks/other/t.yaml", "task: t"),
            ("v.yaml", "task: w"),
        ];
        assert_eq!(found(&files, "tasks/all", "t"), file("tasks/all/x.yaml"));
        assert_eq!(found(&files, "tasks/all", "u"), file("tasks/all/below/y.yaml"));
        assert_eq!(found(&files, "tasks/all", "v"), file("tasks/other/z.yaml"));
        // A folder called `tasks` is the outermost.
        let nothing = Found::Nothing { within: "tasks".into(), too_large: None };
        assert_eq!(found(&files, "tasks/all", "w"), nothing);
    }

    #[test]
    fn two_that_are_equally_near_are_none() {
        let files = [("tasks/a/x.yaml", "task: t"), ("tasks/b/x.yaml", "task: t"), ("tasks/c/g.yaml", "")];
        let two = Found::Two("tasks/a/x.yaml".into(), "tasks/b/x.yaml".into());
        assert_eq!(found(&files, "tasks/c", "t"), two);
        assert_eq!(found(&files, "tasks/b", "t"), file("tasks/b/x.yaml"));
    }

    #[test]
    fn a_tag_is_its_tasks_by_name() {
        let files = [
            ("tasks/a.yaml", "task: t2\ntag: x"),
            ("tasks/b.yaml", "task: t1\ntag: [y, x]"),
            ("tasks/c.yaml", "include: base\ntask: t0"),
            ("tasks/base", "tag: x\ntask: none"),
            ("tasks/below/d.yaml", "task: t3\ntag: x"),
            // A group hands its tags to no task.
            ("tasks/g.yaml", "group: g\ntag: x\ntask: [t1]"),
        ];
        let paths = ["tasks/c.yaml", "tasks/b.yaml", "tasks/a.yaml", "tasks/below/d.yaml"];
        assert_eq!(found(&files, "tasks", "x"), Found::Tag(paths.map(PathBuf::from).to_vec()));
        assert_eq!(found(&files, "tasks", "y"), Found::Tag(vec!["tasks/b.yaml".into()]));
        assert_eq!(found(&files, "tasks", "g"), file("tasks/g.yaml"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_known_by_its_own_name() {
        let files = [("tasks/x.yaml", "task: ["), ("tasks/y.yaml", "task: x2\ndoc_to_text: !function a.b")];
        assert_eq!(found(&files, "tasks", "x"), file("tasks/x.yaml"));
        assert_eq!(found(&files, "tasks", "x2"), file("tasks/y.yaml"));
    }

    #[test]
    fn the_temporary_folder_is_no_folder_of_tasks() {
        let nothing = Found::Nothing { within: "".into(), too_large: None };
        assert_eq!(found(&[("a/b/g.yaml", "")], "a/b", "t"), nothing);
    }
}
