//! What a `download` node refers to: its content, wherever that lies.

use std::path::{Path, PathBuf};

use qpipe_cache::{StatCache, Tree};
use qpipe_nodes::kinds::{Download, Source};
use qpipe_nodes::{Artifact, Kind};

use super::error::PlanError;
use crate::fetch::{Lock, Pin, holds, wanted_data_file, wanted_model_file};

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
        /// A `tokenizer.json`, or a folder with one: the one given, else that of `config.json`.
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
    match download.source() {
        Some(Source::Local(path)) => {
            let path = base.join(path);
            let tree = local_tree(&path, download.output(), stat)?;
            Ok(Resolved::Local { path, tree })
        }
        Some(Source::Random(config)) => {
            let config = base.join(config);
            let config_tree = file_tree(&config, stat)?;
            let given = download.tokenizer.as_ref().map(|path| base.join(path));
            let tokenizer = match given.or_else(|| tokenizer_beside(&config)) {
                None => None,
                Some(path) => {
                    let tree = if path.is_file() {
                        file_tree(&path, stat)?
                    } else {
                        listing(
                            &path,
                            "tokenizer files",
                            &|name| !name.contains('/') && name.contains("token"),
                            stat,
                        )?
                    };
                    Some((path, tree))
                }
            };
            Ok(Resolved::Random { config: (config, config_tree), tokenizer })
        }
        Some(Source::Hub { .. } | Source::Http(_)) => {
            Ok(pin_of(lock, download)
                .map_or(Resolved::Unresolved, |pin| Resolved::Pinned { pin: pin.clone() }))
        }
        None => Ok(Resolved::Unresolved),
    }
}

/// The folder of a config.json that a tokenizer.json lies in too: a checkpoint folder without weights.
fn tokenizer_beside(config: &Path) -> Option<PathBuf> {
    // Of a name alone it is empty, and cannot be opened.
    let folder = config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.join("tokenizer.json").is_file().then(|| folder.to_owned())
}

/// The name of a remote source in the lock file: the source with its revision, and before it what is taken from there, where
/// that is not what such a source usually holds. The files of a model and of an adapter in one repository are not the same.
pub fn lock_name(download: &Download) -> Option<String> {
    let (kind, text) = download.target()?;
    let usual = match Source::parse(text).ok()? {
        Source::Hub { repo_type: "models", .. } => "model",
        _ => "data",
    };
    let name = name_with_revision(download, text);
    Some(if kind == usual { name } else { format!("{kind} {name}") })
}

fn name_with_revision(download: &Download, text: &str) -> String {
    match &download.revision {
        Some(revision) => format!("{text}@{revision}"),
        None => text.to_owned(),
    }
}

/// What the lock file says of a remote source, if the pipeline still asks for the same.
pub fn pin_of<'a>(lock: &'a Lock, download: &Download) -> Option<&'a Pin> {
    let (_, text) = download.target()?;
    let paths = |pin: &'a Pin| pin.tree().files.keys().map(String::as_str);
    let pin = lock
        .get(&lock_name(download)?)
        // Older lock files name the source alone, whatever is taken from it.
        .or_else(|| lock.get(&name_with_revision(download, text)))
        .filter(|pin| holds(download.output(), paths(pin)))?;
    // Of a file from the web whose `digest` was changed the lock file says nothing. Older ones do not name it.
    let other = download.digest.is_some() && pin.revision.is_some() && pin.revision != download.digest;
    (!other).then_some(pin)
}

/// What a local folder or file holds, as far as it is of use: a README beside the weights is in no key.
pub fn local_tree(path: &Path, artifact: Artifact, stat: &StatCache) -> Result<Tree, PlanError> {
    match artifact {
        // An artifact that is one file has no name: paths are in no key, and no filter applies.
        Artifact::Data => {
            listing(path, "data files (.jsonl, .json, .csv, .tsv, .parquet)", &wanted_data_file, stat)
        }
        _ if path.is_file() => Err(PlanError::Unsuitable {
            path: path.to_owned(),
            problem: format!("is a file; {} is a folder", artifact.with_article()),
        }),
        Artifact::Adapter => {
            let tree = listing(
                path,
                "adapter files",
                &|name| !name.contains('/') && wanted_adapter_file(name),
                stat,
            )?;
            demand(path, &tree, "adapter_config.json")?;
            Ok(tree)
        }
        _ => {
            let tree =
                listing(path, "model files", &|name| !name.contains('/') && wanted_model_file(name), stat)?;
            demand(path, &tree, "config.json")?;
            Ok(tree)
        }
    }
}

fn wanted_adapter_file(name: &str) -> bool {
    name.starts_with("adapter_")
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

/// The files below `path` whose names pass `filter`, at least one. A file is looked at once: what is missing is
/// told afterwards.
fn listing(
    path: &Path,
    what: &'static str,
    filter: &dyn Fn(&str) -> bool,
    stat: &StatCache,
) -> Result<Tree, PlanError> {
    let tree = match stat.digest_tree(path, filter) {
        Err(_) if std::fs::metadata(path).is_err() => {
            return Err(PlanError::Missing { path: path.to_owned() });
        }
        tree => tree?,
    };
    if tree.files.is_empty() {
        return Err(PlanError::Empty { path: path.to_owned(), what });
    }
    Ok(tree)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn models_and_adapters_of_one_repository_have_pins_of_their_own() {
        let download = |kind: &str, text: &str| -> Download {
            serde_json::from_value(serde_json::json!({ kind: text })).unwrap()
        };
        let pin = |names: &[&str]| {
            let entry = qpipe_cache::Entry { digest: qpipe_cache::Digest::of(b"x"), size: 1 };
            let files = names.iter().map(|name| ((*name).to_owned(), entry)).collect();
            Pin::new(Some("0123".to_owned()), &Tree { files })
        };
        let name = |kind, text| lock_name(&download(kind, text)).unwrap();
        assert_eq!(name("model", "hf://org/x"), "hf://org/x");
        assert_eq!(name("adapter", "hf://org/x"), "adapter hf://org/x");
        assert_eq!(name("data", "hf://datasets/org/x"), "hf://datasets/org/x");
        assert_eq!(name("data", "https://x.org/x.jsonl"), "https://x.org/x.jsonl");

        // What an earlier qpipe wrote for an adapter is the adapter's still, and no model's.
        let mut lock = Lock::default();
        lock.set("hf://org/x", pin(&["adapter_config.json", "adapter_model.safetensors"]));
        assert!(pin_of(&lock, &download("adapter", "hf://org/x")).is_some());
        assert!(pin_of(&lock, &download("model", "hf://org/x")).is_none());
        assert!(pin_of(&lock, &download("data", "hf://org/x")).is_none());
        lock.set("hf://org/x", pin(&["config.json", "model.safetensors"]));
        assert!(pin_of(&lock, &download("adapter", "hf://org/x")).is_none());
        assert!(pin_of(&lock, &download("model", "hf://org/x")).is_some());
    }

    #[test]
    fn a_tokenizer_is_taken_from_the_folder_of_config_json() {
        let folder = std::env::temp_dir().join(format!("qpipe-tokenizer-beside-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("config.json");
        assert_eq!(tokenizer_beside(&config), None);
        std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
        assert_eq!(tokenizer_beside(&config), Some(folder.clone()));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
