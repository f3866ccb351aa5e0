//! One file, taken apart: `version`, `name`, `include`, `params`, `nodes`, and nothing else.

use qpipe_nodes::KindSpec;

use super::error::{Code, Mistake, Mistakes};
use super::names::{is_folder_name, is_identifier};
use super::nearest::advice;
use super::source::Span;
use super::value::{Data, Entry, Key, Value, find};

/// The version of the file format that this program reads.
const VERSION: u64 = 1;

const KEYS: [&str; 5] = ["version", "name", "include", "params", "nodes"];

/// Whether the file is the one that was asked for, or one that another includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    Included,
}

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) name: Option<String>,
    /// Paths of other files, as written.
    pub(super) includes: Vec<(String, Span)>,
    pub(super) params: Vec<Entry>,
    pub(super) nodes: Vec<Declaration>,
}

/// One entry of `nodes`.
#[derive(Clone, Debug)]
pub(super) struct Declaration {
    pub(super) name: Key,
    pub(super) kind: &'static KindSpec,
    /// All keys but `kind`.
    pub(super) entries: Vec<Entry>,
}

impl Document {
    /// Takes `root` apart. `broken` gets the names of the nodes that cannot be used, so that references to
    /// them are not reported as well.
    pub(super) fn read(root: Value, role: Role, broken: &mut Vec<Key>, mistakes: &mut Mistakes) -> Self {
        let span = root.span;
        let begin = Span { end: span.start, ..span };
        let entries = match root.data {
            Data::Mapping(entries) => entries,
            Data::Null => {
                mistakes.push(
                    Mistake::new(Code::MissingKey, begin, "the file is empty")
                        .help("Begin with `version: 1`, `name: NAME` and `nodes:`."),
                );
                return Self::default();
            }
            data => {
                let found = Value { span, data };
                mistakes.push(
                    Mistake::new(
                        Code::InvalidValue,
                        span,
                        format!("a pipeline is a mapping, not {}", found.describe()),
                    )
                    .help("Begin with `version: 1`, `name: NAME` and `nodes:`."),
                );
                return Self::default();
            }
        };
        if find(&entries, "version").is_none() && role == Role::Main {
            mistakes.push(
                Mistake::new(Code::MissingKey, begin, "`version` is missing")
                    .help(format!("Add `version: {VERSION}`.")),
            );
        }
        if find(&entries, "nodes").is_none() && find(&entries, "include").is_none() && role == Role::Main {
            mistakes.push(
                Mistake::new(Code::MissingKey, begin, "`nodes` is missing")
                    .help("Declare at least one node."),
            );
        }
        let mut document = Self::default();
        for entry in entries {
            document.take(entry, role, broken, mistakes);
        }
        document
    }

    fn take(&mut self, entry: Entry, role: Role, broken: &mut Vec<Key>, mistakes: &mut Mistakes) {
        let Entry { key, value } = entry;
        match key.text.as_str() {
            "version" => check_version(&value, mistakes),
            "name" => self.name = read_name(&value, mistakes),
            "include" => self.includes = read_includes(value, mistakes),
            "params" => self.params = read_params(value, mistakes),
            "nodes" => self.nodes = read_nodes(&key, value, role, broken, mistakes),
            name => {
                let mut mistake = Mistake::new(Code::UnknownKey, key.span, format!("unknown key `{name}`"));
                if let Some(advice) = advice(name, "Keys of a pipeline", &KEYS) {
                    mistake = mistake.help(advice);
                }
                mistakes.push(mistake);
            }
        }
    }
}

fn check_version(value: &Value, mistakes: &mut Mistakes) {
    let message = match &value.data {
        Data::Number(number) if number.as_u64() == Some(VERSION) => None,
        Data::Number(number) => Some(format!("version {number} of the file format is not known")),
        _ => Some(format!("`version` is a whole number, not {}", value.describe())),
    };
    if let Some(message) = message {
        mistakes.push(
            Mistake::new(Code::InvalidValue, value.span, message)
                .help(format!("Write `version: {VERSION}`, the one that this qpipe reads.")),
        );
    }
}

fn read_name(value: &Value, mistakes: &mut Mistakes) -> Option<String> {
    match &value.data {
        Data::Text(text) if is_folder_name(text) => Some(text.clone()),
        Data::Text(text) => {
            mistakes.push(
                Mistake::new(
                    Code::InvalidName,
                    value.span,
                    format!("`{text}` cannot be the name of a folder"),
                )
                .help("The name becomes results/NAME: use letters, digits, `.`, `_` and `-`."),
            );
            None
        }
        Data::Number(number) => {
            mistakes.push(
                Mistake::new(Code::InvalidValue, value.span, "`name` is text, not a number")
                    .help(format!("Put it into quotes: `name: \"{number}\"`.")),
            );
            None
        }
        _ => {
            let message = format!("`name` is text, not {}", value.describe());
            mistakes.push(Mistake::new(Code::InvalidValue, value.span, message));
            None
        }
    }
}

fn read_includes(value: Value, mistakes: &mut Mistakes) -> Vec<(String, Span)> {
    let list = match value.data {
        Data::List(list) => list,
        data => vec![Value { span: value.span, data }],
    };
    let mut paths = Vec::new();
    for item in list {
        match item.data {
            Data::Text(path) if path.contains("${") => mistakes.push(Mistake::new(
                Code::InvalidValue,
                item.span,
                "an included path cannot depend on `params`, which included files may declare",
            )),
            Data::Text(path) => paths.push((path, item.span)),
            _ => {
                let message = format!("`include` takes paths of pipeline files, not {}", item.describe());
                mistakes.push(Mistake::new(Code::InvalidValue, item.span, message));
            }
        }
    }
    paths
}

fn read_params(value: Value, mistakes: &mut Mistakes) -> Vec<Entry> {
    match value.data {
        Data::Null => Vec::new(),
        Data::Mapping(mut entries) => {
            entries.retain(|entry| check_identifier(&entry.key, "parameter", mistakes));
            entries
        }
        data => {
            let value = Value { data, ..value };
            let message = format!("`params` is a mapping from names to values, not {}", value.describe());
            mistakes.push(Mistake::new(Code::InvalidValue, value.span, message));
            Vec::new()
        }
    }
}

fn read_nodes(
    key: &Key,
    value: Value,
    role: Role,
    broken: &mut Vec<Key>,
    mistakes: &mut Mistakes,
) -> Vec<Declaration> {
    let entries = match value.data {
        Data::Mapping(entries) => entries,
        Data::Null => Vec::new(),
        data => {
            let value = Value { data, ..value };
            let message = format!("`nodes` is a mapping from names to nodes, not {}", value.describe());
            mistakes.push(
                Mistake::new(Code::InvalidValue, value.span, message)
                    .help("Write each node as `name: { kind: KIND, … }`."),
            );
            return Vec::new();
        }
    };
    if entries.is_empty() && role == Role::Main {
        mistakes.push(
            Mistake::new(Code::MissingKey, key.span, "`nodes` is empty").help("Declare at least one node."),
        );
    }
    let mut nodes = Vec::with_capacity(entries.len());
    for Entry { key, value } in entries {
        let named = check_identifier(&key, "node", mistakes);
        match read_node(&key, value, mistakes) {
            Some((kind, entries)) if named => nodes.push(Declaration { name: key, kind, entries }),
            _ => broken.push(key),
        }
    }
    nodes
}

fn read_node(name: &Key, value: Value, mistakes: &mut Mistakes) -> Option<(&'static KindSpec, Vec<Entry>)> {
    let kinds = || qpipe_nodes::KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>();
    let mut entries = match value.data {
        Data::Mapping(entries) => entries,
        data => {
            let value = Value { data, ..value };
            let at = if matches!(value.data, Data::Null) { name.span } else { value.span };
            let message = format!("a node is a mapping with a `kind`, but this is {}", value.describe());
            mistakes.push(
                Mistake::new(Code::InvalidValue, at, message)
                    .help(format!("Write `{}: {{ kind: KIND, … }}`.", name.text)),
            );
            return None;
        }
    };
    let Some(index) = entries.iter().position(|entry| entry.key.text == "kind") else {
        let near = entries.iter().find(|e| super::nearest::nearest(&e.key.text, ["kind"]).is_some());
        let mut mistake =
            Mistake::new(Code::MissingKey, name.span, format!("`kind` is missing in `{}`", name.text))
                .help(format!("Kinds: {}.", kinds().join(", ")));
        if let Some(near) = near {
            mistake = mistake.also(near.key.span, "is this meant to be `kind`?");
        }
        mistakes.push(mistake);
        return None;
    };
    let kind = entries.remove(index).value;
    let Data::Text(text) = &kind.data else {
        let message = format!("`kind` is the name of a node kind, not {}", kind.describe());
        mistakes.push(
            Mistake::new(Code::InvalidValue, kind.span, message)
                .help(format!("Kinds: {}.", kinds().join(", "))),
        );
        return None;
    };
    let found = qpipe_nodes::find(text);
    if found.is_none() {
        let mut mistake = Mistake::new(Code::UnknownKind, kind.span, format!("unknown kind `{text}`"));
        if let Some(advice) = advice(text, "Kinds", &kinds()) {
            mistake = mistake.help(advice);
        }
        mistakes.push(mistake);
    }
    Some((found?, entries))
}

fn check_identifier(key: &Key, what: &str, mistakes: &mut Mistakes) -> bool {
    let good = is_identifier(&key.text);
    if !good {
        mistakes.push(
            Mistake::new(
                Code::InvalidName,
                key.span,
                format!("`{}` cannot be the name of a {what}", key.text),
            )
            .help("Begin with a letter or `_`; go on with letters, digits, `_` and `-`."),
        );
    }
    good
}
