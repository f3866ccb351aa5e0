//! What the documents promise: every pipeline in them and in pipelines/ is valid, and so are their links.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use qpipe::pipeline::Pipeline;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_shipped_pipeline_is_valid_and_names_the_schema() {
    let mut count = 0;
    for entry in fs::read_dir(root().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let loaded = Pipeline::load(&path, &[]);
            assert!(loaded.is_ok(), "{}: {:?}", path.display(), loaded.err());
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                text.starts_with("# yaml-language-server: $schema=qpipe.schema.json\n"),
                "{}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count >= 2);
}

#[test]
fn every_pipeline_in_the_readme_is_valid() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<&str> =
        readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    let folder = tempfile::tempdir().unwrap();
    for block in blocks {
        let path = folder.path().join("readme.yaml");
        fs::write(&path, block).unwrap();
        let loaded = Pipeline::load(&path, &[]);
        assert!(loaded.is_ok(), "{:?}", loaded.err());
    }
}

#[test]
fn links_lead_somewhere() {
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") || link.starts_with('#') {
                continue;
            }
            let target = file.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{}: {link}", file.display());
        }
    }
}

fn documents() -> Vec<PathBuf> {
    let folders = [root(), root().join("docs"), root().join("docs/decisions"), root().join("examples")];
    let is_document = |path: &Path| path.extension().is_some_and(|extension| extension == "md");
    folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| is_document(path))
        .collect()
}
