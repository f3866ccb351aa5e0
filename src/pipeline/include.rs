//! `include:` one pipeline out of several files.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::document::{Declaration, Document, Role};
use super::error::{Code, Mistake, Mistakes};
use super::params::{Param, Params};
use super::source::{Source, Sources, Span};
use super::value::{Entry, Key};
use super::yaml;

/// Larger files are not pipelines.
const LARGEST_FILE: u64 = 64 << 20;

/// Everything that the file and what it includes say; what is included comes first.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    pub(super) name: Option<String>,
    pub(super) params: Params,
    pub(super) nodes: Vec<Declaration>,
    /// Names of nodes that could not be read.
    pub(super) broken: HashSet<String>,
    /// Whether a file is missing in the bundle: names that are not found may stand there.
    pub(super) incomplete: bool,
}

/// Reads `file` and all that it includes.
pub(super) fn load(file: &Path, sources: &mut Sources, mistakes: &mut Mistakes) -> Bundle {
    let mut loader = Loader {
        sources,
        mistakes,
        bundle: Bundle::default(),
        open: Vec::new(),
        done: HashSet::new(),
        broken: Vec::new(),
    };
    loader.load(file, None);
    // Within one file YAML forbids to declare a name twice.
    if loader.done.len() > 1 {
        loader.reject_conflicts();
    }
    loader.bundle
}

struct Loader<'a> {
    sources: &'a mut Sources,
    mistakes: &'a mut Mistakes,
    bundle: Bundle,
    /// The files being read, outermost first: real path and name.
    open: Vec<(PathBuf, String)>,
    /// Real paths of the files that were read: a file that two others include is taken once.
    done: HashSet<PathBuf>,
    /// The nodes that could not be read.
    broken: Vec<Key>,
}

impl Loader<'_> {
    fn load(&mut self, path: &Path, included_at: Option<Span>) {
        let Some((real, text)) = self.read(path, included_at) else {
            self.bundle.incomplete = true;
            return;
        };
        if self.closes_circle(&real, included_at) || !self.done.insert(real.clone()) {
            return;
        }
        let role = if included_at.is_some() { Role::Included } else { Role::Main };
        let name = path.display().to_string();
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let (index, source) = self.sources.add(Source::new(name.clone(), folder.clone(), text));
        let begin = Span { source: index, start: 0, end: 0 };
        let before = self.mistakes.len();
        let Some(root) = yaml::parse(source.text(), index, 0, self.mistakes) else {
            if self.mistakes.len() == before {
                self.mistakes.push(
                    Mistake::new(Code::MissingKey, begin, "the file is empty")
                        .help("Begin with `version: 1`, `name: NAME` and `nodes:`."),
                );
            }
            self.bundle.incomplete = true;
            return;
        };
        let mut broken = Vec::new();
        let document = Document::read(root, role, &mut broken, self.mistakes);
        self.open.push((real, name));
        for (path, span) in &document.includes {
            self.load(&folder.join(path), Some(*span));
        }
        self.open.pop();
        self.add(document, broken, role);
    }

    /// The file's real path and its text.
    fn read(&mut self, path: &Path, included_at: Option<Span>) -> Option<(PathBuf, String)> {
        let problem = match read_text(path) {
            Ok(read) => return Some(read),
            Err(error) => error.words(path),
        };
        self.mistakes.push(match included_at {
            Some(at) => Mistake::new(Code::Unreadable, at, problem)
                .help("Paths are relative to the file that names them."),
            None => Mistake::nowhere(Code::Unreadable, problem),
        });
        None
    }

    fn closes_circle(&mut self, real: &Path, included_at: Option<Span>) -> bool {
        let Some(first) = self.open.iter().position(|(open, _)| open == real) else { return false };
        let Some(at) = included_at else { return false };
        let mut names: Vec<&str> = self.open[first..].iter().map(|(_, name)| name.as_str()).collect();
        names.push(names[0]);
        let circle = names.join(" -> ");
        self.mistakes.push(
            Mistake::new(Code::IncludeCycle, at, format!("files include each other: {circle}"))
                .label("closes the circle"),
        );
        true
    }

    fn add(&mut self, document: Document, broken: Vec<Key>, role: Role) {
        if role == Role::Main {
            self.bundle.name = document.name;
        }
        for Entry { key, value } in document.params {
            let param = Param::new(&key, &value, self.mistakes);
            if let Some(earlier) = self.bundle.params.get(&key.text) {
                let mistake = conflict("parameter", &key, earlier.declared, self.sources);
                self.mistakes.push(mistake);
            } else {
                self.bundle.params.insert(key.text, param);
            }
        }
        self.bundle.broken.extend(broken.iter().map(|key| key.text.clone()));
        self.broken.extend(broken);
        self.bundle.nodes.extend(document.nodes);
    }

    fn reject_conflicts(&mut self) {
        let mut declared: HashMap<String, Span> = HashMap::new();
        let (sources, mistakes) = (&*self.sources, &mut *self.mistakes);
        let mut is_first = |name: &Key| {
            let earlier = *declared.entry(name.text.clone()).or_insert(name.span);
            if earlier != name.span {
                mistakes.push(conflict("node", name, earlier, sources));
            }
            earlier == name.span
        };
        for name in &self.broken {
            is_first(name);
        }
        self.bundle.nodes.retain(|node| is_first(&node.name));
    }
}

fn conflict(what: &str, key: &Key, earlier: Span, sources: &Sources) -> Mistake {
    let message = format!("the {what} `{}` is declared in {} already", key.text, sources.place(earlier));
    Mistake::new(Code::Conflict, key.span, message).help(format!("Give one of the two {what}s another name."))
}

/// Why a file is not read.
pub(super) enum ReadError {
    Io(io::Error),
    NotAFile,
    TooLarge,
    NotText { line: usize },
}

impl ReadError {
    /// Of the file at `path`.
    pub(super) fn words(&self, path: &Path) -> String {
        let shown = path.display();
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => format!("`{shown}` does not exist"),
            Self::Io(error) => format!("`{shown}` cannot be read: {error}"),
            Self::NotAFile => format!("`{shown}` is not a file"),
            Self::TooLarge => format!("`{shown}` is too large to be a pipeline"),
            Self::NotText { line } => format!("`{shown}` is not UTF-8 text (line {line})"),
        }
    }
}

/// The real path and the text of the file at `path`.
pub(super) fn read_text(path: &Path) -> Result<(PathBuf, String), ReadError> {
    let metadata = std::fs::metadata(path).map_err(ReadError::Io)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile);
    }
    if metadata.len() > LARGEST_FILE {
        return Err(ReadError::TooLarge);
    }
    let real = path.canonicalize().map_err(ReadError::Io)?;
    let bytes = std::fs::read(path).map_err(ReadError::Io)?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
        ReadError::NotText { line }
    })?;
    // A byte-order mark would shift the columns of the first line.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok((real, text))
}
