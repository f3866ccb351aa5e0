//! The nodes of a pipeline after `matrix` and `for_each`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use qpipe_nodes::{Kind, KindSpec, Parsed, Resources};
use serde::de::DeserializeOwned;

use super::task_origins::TaskOrigins;

/// One node that runs, or is found in the cache.
#[derive(Clone, Debug)]
pub struct Instance {
    /// `gptq[n=20]`; the node's name where it has neither `matrix` nor `for_each`.
    pub id: String,
    /// The name in the file.
    pub group: String,
    /// What it does.
    pub kind: &'static KindSpec,
    /// Its parameters, checked and with defaults, and what follows from them.
    pub parsed: Parsed,
    /// Its name in reports.
    pub label: Option<String>,
    /// What it asks of the machine.
    pub resources: Resources,
    /// What is connected to its ports; a port that is left out is not there.
    pub inputs: BTreeMap<&'static str, Binding>,
    /// Relative paths in its parameters start here: the folder of the file it stands in.
    pub base_dir: PathBuf,
    /// Where it stands.
    pub location: Location,
    /// Where the rules of its task files stand.
    pub task_origins: TaskOrigins,
}

impl Instance {
    /// Its parameters as its kind has them.
    ///
    /// # Panics
    /// Where they are not of the kind `K`: when the file was read, they were.
    pub fn parameters<K: Kind + DeserializeOwned>(&self) -> K {
        K::deserialize(&self.parsed.params).expect("the parameters were checked when the file was read")
    }
}

/// What is connected to a port: indices into [`super::Pipeline::instances`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// One instance.
    One(usize),
    /// Several, in the order of the file; at least one.
    Many(Vec<usize>),
    /// By name.
    Map(BTreeMap<String, usize>),
}

impl Binding {
    /// The connected instances, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let (one, list, map) = match self {
            Self::One(index) => (Some(*index), None, None),
            Self::Many(list) => (None, Some(list), None),
            Self::Map(map) => (None, None, Some(map)),
        };
        let list = list.into_iter().flatten().copied();
        one.into_iter().chain(list).chain(map.into_iter().flat_map(|map| map.values().copied()))
    }
}

/// A place in a file; line and column count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}
