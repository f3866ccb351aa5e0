//! What a `download` node refers to: its content, wherever that lies.

use std::path::{Path, PathBuf};

use qpipe_cache::{StatCache, Tree};
use qpipe_nodes::Artifact;
use qpipe_nodes::kinds::{Download, Source};

use super::error::PlanError;
use crate::fetch::{Lock, Pin, wanted_model_file};

/// A source as far as it is known without the network.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// A file or folder on this machine; referenced, not copied.
    Local {
        /// Where.
        path: PathBuf,
        /// What it holds.
        tree: Tree,
    },
    /// A remote source whose content the lock file tells.
    Pinned {
        /// The revision and the digests.
        pin: Pin,
    },
    /// A remote source that has to be asked.
    Unresolved,
    /// Weights to be made.
    Random {
        /// `config.json`.
        config: (PathBuf, Tree),
        /// A `tokenizer.json`, or a folder with one.
        tokenizer: Option<(PathBuf, Tree)>,
    },
}

/// Looks at the source of `download`; relative paths start at `base`.
pub(super) fn resolve(
    download: &Download,
    base: &Path,
    stat: &StatCache,
    lock: &Lock,
) -> Result<Resolved, PlanError> {
    let Some((artifact, text)) = download.target() else { return Ok(Resolved::Unresolved) };
    match download.source() {
        Some(Source::Local(path)) => {
            let artifact = match artifact {
                "model" => Artifact::Model,
                "adapter" => Artifact::Adapter,
                _ => Artifact::Data,
            };
            let path = base.join(path);
            let tree = local_tree(&path, artifact, stat)?;
            Ok(Resolved::Local { path, tree })
        }
        Some(Source::Random(config)) => {
            let config = base.join(config);
            let config_tree = file_tree(&config, stat)?;
            let tokenizer = match &download.tokenizer {
                None => None,
                Some(path) => {
                    let path = base.join(path);
                    let tree = if path.is_file() {
                        file_tree(&path, stat)?
                    } else {
                        folder_tree(&path, "tokenizer files", &|name| name.contains("token"), stat)?
                    };
                    Some((path, tree))
                }
            };
            Ok(Resolved::Random { config: (config, config_tree), tokenizer })
        }
        Some(Source::Hub { .. } | Source::Http(_)) => {
            let source = lock_name(download, text);
            Ok(lock.get(&source).map_or(Resolved::Unresolved, |pin| Resolved::Pinned { pin: pin.clone() }))
        }
        None => Ok(Resolved::Unresolved),
    }
}

/// The name of a remote source in the lock file: the source with its revision.
pub fn lock_name(download: &Download, text: &str) -> String {
    match &download.revision {
        Some(revision) => format!("{text}@{revision}"),
        None => text.to_owned(),
    }
}

/// What a local folder or file holds, as far as it is of use: a README beside the weights is in no key.
pub fn local_tree(path: &Path, artifact: Artifact, stat: &StatCache) -> Result<Tree, PlanError> {
    let is_file = match std::fs::metadata(path) {
        Ok(metadata) => metadata.is_file(),
        Err(_) => return Err(PlanError::Missing { path: path.to_owned() }),
    };
    match artifact {
        Artifact::Data if is_file => {
            // An artifact that is one file has no name: paths are in no key.
            Ok(stat.digest_tree(path, &|_| true)?)
        }
        _ if is_file => Err(PlanError::Unsuitable {
            path: path.to_owned(),
            problem: format!("is a file; {} is a folder", artifact.with_article()),
        }),
        Artifact::Data => {
            folder_tree(path, "data files (.jsonl)", &|name| name.ends_with(".jsonl") && !hidden(name), stat)
        }
        Artifact::Adapter => {
            let tree = folder_tree(
                path,
                "adapter files",
                &|name| !name.contains('/') && wanted_adapter_file(name),
                stat,
            )?;
            demand(path, &tree, "adapter_config.json")?;
            Ok(tree)
        }
        _ => {
            let tree = folder_tree(
                path,
                "model files",
                &|name| !name.contains('/') && wanted_model_file(name),
                stat,
            )?;
            demand(path, &tree, "config.json")?;
            Ok(tree)
        }
    }
}

fn wanted_adapter_file(name: &str) -> bool {
    name.starts_with("adapter_")
}

fn hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.'))
}

fn demand(path: &Path, tree: &Tree, name: &str) -> Result<(), PlanError> {
    if tree.files.contains_key(name) {
        return Ok(());
    }
    Err(PlanError::Unsuitable { path: path.to_owned(), problem: format!("has no {name}") })
}

fn file_tree(path: &Path, stat: &StatCache) -> Result<Tree, PlanError> {
    if !path.is_file() {
        return Err(PlanError::Missing { path: path.to_owned() });
    }
    Ok(stat.digest_tree(path, &|_| true)?)
}

fn folder_tree(
    path: &Path,
    what: &'static str,
    filter: &dyn Fn(&str) -> bool,
    stat: &StatCache,
) -> Result<Tree, PlanError> {
    if !path.is_dir() {
        return Err(PlanError::Missing { path: path.to_owned() });
    }
    let tree = stat.digest_tree(path, filter)?;
    if tree.files.is_empty() {
        return Err(PlanError::Empty { path: path.to_owned(), what });
    }
    Ok(tree)
}
