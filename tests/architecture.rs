//! The layout is the architecture: these rules are what docs/architecture.md promises.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const LONGEST: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs" || e == "cu" || e == "cpp") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "{folder} has sources");
    found
}

fn mentions(text: &str, name: &str) -> bool {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(name).any(|(at, _)| {
            // `fetch::` does not name `tch::`.
            !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
        })
    })
}

/// Each folder, and what it must not name.
#[test]
fn dependencies_run_one_way() {
    for (folder, forbidden) in [
        ("src", &["tch::", "qpipe_worker", "qpipe_kernels"][..]),
        ("src/pipeline", &["crate::plan", "crate::run", "crate::cli", "qpipe_cache"]),
        ("src/plan", &["crate::run", "crate::cli", "crate::report"]),
        ("src/run", &["crate::cli"]),
        ("src/report", &["crate::pipeline", "crate::plan", "crate::run", "crate::cli"]),
        ("src/fetch", &["crate::pipeline", "crate::plan", "crate::run", "crate::cli", "crate::report"]),
        ("cache/src", &["qpipe_nodes", "serde_yaml", "tch::"]),
        ("nodes/src", &["qpipe_cache", "serde_yaml", "tch::"]),
        ("kernels/src", &["qpipe_nodes", "qpipe_cache", "qpipe_worker"]),
        ("worker/src", &["qpipe_cache", "serde_yaml", "petgraph", "qpipe::"]),
        ("worker/src/model", &["crate::sft", "crate::quant", "crate::eval", "crate::bench", "crate::serve"]),
    ] {
        for (path, text) in sources(folder) {
            for name in forbidden {
                assert!(!mentions(&text, name), "{} names {name}", path.display());
            }
        }
    }
}

#[test]
fn one_file_reads_yaml() {
    let readers: Vec<PathBuf> = sources("src")
        .into_iter()
        .filter(|(_, text)| mentions(text, "serde_yaml"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(readers, [root().join("src/pipeline/yaml.rs")]);
}

#[test]
fn libraries_do_not_print() {
    for folder in [
        "src/pipeline",
        "src/plan",
        "src/run",
        "src/report",
        "src/fetch",
        "cache/src",
        "nodes/src",
        "kernels/src",
        "worker/src",
    ] {
        for (path, text) in sources(folder) {
            for name in ["println!", "eprintln!", "eprint!", "print!("] {
                let own = text.split("#[cfg(test)]").next().unwrap();
                let test = path.to_string_lossy().ends_with("_tests.rs");
                assert!(test || !mentions(own, name), "{} prints", path.display());
            }
        }
    }
}

#[test]
fn no_source_file_is_too_long() {
    for folder in ["src", "cache/src", "nodes/src", "kernels/src", "worker/src", "worker/shim"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= LONGEST, "{} has {lines} lines: split it by what it owns", path.display());
        }
    }
}

#[test]
fn every_action_is_a_kind_and_every_worker_kind_an_action() {
    let table = fs::read_to_string(root().join("worker/src/actions.rs")).unwrap();
    for kind in qpipe_nodes::KINDS {
        let listed = table.contains(&format!("(\"{}\",", kind.name));
        assert_eq!(listed, kind.name != "report", "{}", kind.name);
    }
    let names: Vec<&str> = qpipe_nodes::KINDS.iter().map(|kind| kind.name).collect();
    assert!(names.is_sorted());
}
