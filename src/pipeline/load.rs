//! The steps from a file to a [`Pipeline`], one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::assemble::{Assembled, assemble};
use super::directory::{Directory, Draft};
use super::document::Declaration;
use super::error::{Code, Mistake, Mistakes, PipelineError, PipelineErrors};
use super::expand::expand;
use super::graph::{self, Link, Sorted};
use super::include::{self, Bundle};
use super::instance::{Instance, Location};
use super::names::is_folder_name;
use super::params::apply_sets;
use super::readers;
use super::resolve::{Inputs, Resolver};
use super::source::{Sources, Span};
use super::sources_there;
use super::substitute::Scope;
use super::task_files;
use super::task_origins::TaskOrigins;
use super::value::find;

/// A pipeline without mistakes.
#[derive(Debug)]
pub struct Pipeline {
    /// Names `results/NAME` and the runs; in no key.
    pub name: String,
    /// The file it was read from, as given.
    pub file: PathBuf,
    /// What there is to do, in the order of the file.
    pub instances: Vec<Instance>,
    /// Indices of `instances`, each after all that it needs; otherwise in the order of the file.
    pub order: Vec<usize>,
    /// The texts it was read from.
    pub sources: Sources,
    declarations: Vec<Declaration>,
    /// For each instance its declaration.
    declared_by: Vec<usize>,
}

impl Pipeline {
    /// Reads `file` and all that it includes, with the parameters `sets` in place of the file's.
    ///
    /// # Errors
    /// All mistakes of the files and of `sets`.
    pub fn load(file: &Path, sets: &[(String, String)]) -> Result<Self, PipelineErrors> {
        let mut sources = Sources::default();
        let mut mistakes = Mistakes::default();
        let mut bundle = include::load(file, &mut sources, &mut mistakes);
        let incomplete = bundle.incomplete;
        apply_sets(&mut bundle.params, sets, incomplete, &mut sources, &mut mistakes);
        let name = name(&bundle, file, &mistakes);
        if let Err(mistake) = &name {
            mistakes.push(mistake.clone());
        }
        let Graph { instances, order, declared_by } = build(file, &bundle, &mut sources, &mut mistakes);
        match name {
            Ok(name) if mistakes.is_empty() => {
                let (file, declarations) = (file.to_path_buf(), bundle.nodes);
                Ok(Self { name, file, instances, order, sources, declarations, declared_by })
            }
            _ => Err(mistakes.finish(&sources)),
        }
    }

    /// Something that was found out about instance `index`, shown at its node's line.
    pub fn diagnose(&self, index: usize, message: impl Into<String>, help: Option<String>) -> PipelineError {
        let declaration = &self.declarations[self.declared_by[index]];
        self.error_at(declaration.name.span, message.into(), help)
    }

    /// Something that was found out about the value of `key` of instance `index`, shown at that value.
    pub fn diagnose_key(
        &self,
        index: usize,
        key: &str,
        message: impl Into<String>,
        help: Option<String>,
    ) -> PipelineError {
        let declaration = &self.declarations[self.declared_by[index]];
        let span = find(&declaration.entries, key).map_or(declaration.name.span, |entry| entry.value.span);
        self.error_at(span, message.into(), help)
    }

    fn error_at(&self, span: Span, message: String, help: Option<String>) -> PipelineError {
        let mistake = Mistake::new(Code::Node, span, message);
        help.into_iter().fold(mistake, Mistake::help).finish(&self.sources)
    }
}

/// The file's `name`, or else the name of the file.
fn name(bundle: &Bundle, file: &Path, mistakes: &Mistakes) -> Result<String, Mistake> {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    match &bundle.name {
        Some(name) => Ok(name.clone()),
        None if is_folder_name(&stem) || !mistakes.is_empty() => Ok(stem),
        None => {
            Err(Mistake::new(Code::MissingKey, Span { source: 0, start: 0, end: 0 }, "`name` is missing")
                .help("Add `name: NAME`; it names the folder of the results."))
        }
    }
}

#[derive(Debug, Default)]
struct Graph {
    instances: Vec<Instance>,
    order: Vec<usize>,
    declared_by: Vec<usize>,
}

/// From declared nodes to instances and their order; incomplete if there are mistakes.
fn build(file: &Path, bundle: &Bundle, sources: &mut Sources, mistakes: &mut Mistakes) -> Graph {
    let declarations = &bundle.nodes;
    if declarations.is_empty() && mistakes.is_empty() {
        mistakes.push(Mistake::nowhere(Code::MissingKey, format!("`{}` declares no nodes", file.display())));
    }
    let scope = Scope {
        sources,
        params: &bundle.params,
        incomplete: bundle.incomplete,
        blind: false,
        matrix: &[],
        item: None,
    };
    let mut directory = Directory::new(declarations, &bundle.broken, bundle.incomplete);
    expand(declarations, scope, &mut directory, mistakes);

    let mut starts = Vec::with_capacity(declarations.len());
    let mut drafts: Vec<(usize, &Draft)> = Vec::with_capacity(declarations.len());
    for node in 0..declarations.len() {
        starts.push(drafts.len());
        drafts.extend(directory.drafts(node).iter().map(|draft| (node, draft)));
    }
    // A node that could not be expanded is still searched for other mistakes.
    let blind = Scope { blind: true, ..scope };
    let unexpanded = || (0..declarations.len()).filter(|node| directory.drafts(*node).is_empty());
    unexpanded().for_each(|node| drop(assemble(&declarations[node], blind, mistakes)));
    let assembled: Vec<Assembled> = drafts
        .iter()
        .map(|(node, draft)| assemble(&declarations[*node], draft.scope(scope), mistakes))
        .collect();
    let outputs: Vec<_> =
        assembled.iter().map(|assembled| assembled.parsed.as_ref().map(|parsed| parsed.output)).collect();

    let resolver = Resolver { declarations, directory: &directory, starts: &starts, outputs: &outputs };
    unexpanded().for_each(|node| drop(resolver.connect(&declarations[node], blind, mistakes)));
    let (inputs, links): (Vec<_>, Vec<Vec<Link>>) = drafts
        .iter()
        .map(|(node, draft)| {
            let Inputs { bindings, links } =
                resolver.connect(&declarations[*node], draft.scope(scope), mistakes);
            (bindings, links)
        })
        .unzip();
    let Sorted { order, circles } = graph::sort(&links);
    for circle in circles {
        let names = circle.iter().map(|(index, at)| (drafts[*index].1.id.as_str(), *at));
        mistakes.push(graph::circle_mistake(&names.collect::<Vec<_>>()));
    }
    if !mistakes.is_empty() {
        sources_there::check(declarations, &drafts, &assembled, sources, mistakes);
        return Graph::default();
    }

    let files: Vec<Arc<str>> = sources.iter().map(|source| Arc::from(source.name())).collect();
    let declared_by: Vec<usize> = drafts.iter().map(|(node, _)| *node).collect();
    let instances =
        drafts.iter().zip(assembled).zip(inputs).filter_map(|(((node, draft), assembled), inputs)| {
            let declaration = &declarations[*node];
            let span = declaration.name.span;
            let source = sources.get(span.source);
            let position = source.position(span.start);
            Some(Instance {
                id: draft.id.clone(),
                group: declaration.name.text.clone(),
                kind: declaration.kind,
                parsed: assembled.parsed?,
                label: assembled.label,
                resources: assembled.resources,
                inputs,
                base_dir: source.folder().clone(),
                location: Location {
                    file: Arc::clone(&files[span.source as usize]),
                    line: position.line,
                    column: position.column,
                },
                task_origins: TaskOrigins::new(),
            })
        });
    let mut instances: Vec<Instance> = instances.collect();
    readers::fill_in(&mut instances, declarations, &declared_by, mistakes);
    let tasks = |index: usize| {
        let declaration = &declarations[declared_by[index]];
        find(&declaration.entries, "tasks").map_or(declaration.name.span, |entry| entry.value.span)
    };
    task_files::fill_in(&mut instances, &tasks, sources, mistakes);
    Graph { instances, order, declared_by }
}
