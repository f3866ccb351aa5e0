//! From a pipeline to keys: for each node, whether its result is known, and if not, why not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use qpipe_cache::{Digest, Location, Manifest, Output, Record, Store, Tree};
use qpipe_nodes::kinds::{Download, HarnessTable, Report};
use qpipe_nodes::{Artifact, Kind};
use serde_json::{Value, json};

use super::error::PlanError;
use super::machine::Machine;
use super::reason::{History, Reason, Subject};
use super::rows::{self, Row};
use super::source::{self, Resolved};
use crate::fetch::Lock;
use crate::pipeline::{Binding, Instance, Pipeline};

/// Raised when the meaning of a manifest changes; all keys change with it.
const SCHEMA: u32 = 1;

/// Where an artifact's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the store.
    Store,
    /// A file or folder of the user's.
    Path(PathBuf),
}

/// A node whose result is known.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its key.
    pub key: Digest,
    /// Digest of its output: what enters the keys of nodes that read it.
    pub content: Digest,
    /// The files of its output.
    pub output: Tree,
    /// Where they are.
    pub place: Place,
}

impl Known {
    /// The result that `record` describes; `local` is where an external artifact lies now.
    pub fn of(record: Record, local: Option<&PathBuf>) -> Self {
        Self::at(record.key, record.output, record.location, local)
    }

    pub(super) fn at(key: Digest, output: Tree, location: Location, local: Option<&PathBuf>) -> Self {
        let place = match (location, local) {
            (Location::External, Some(path)) => Place::Path(path.clone()),
            _ => Place::Store,
        };
        Self { key, content: output.digest(), output, place }
    }
}

/// A node that has to run, all of whose inputs are known.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its manifest; `None` for a remote source that has to be asked what it is.
    pub manifest: Option<Manifest>,
    /// Its key, where there is a manifest.
    pub key: Option<Digest>,
    /// Why.
    pub reason: Reason,
    /// Of a download: where the bytes come from.
    pub source: Option<Resolved>,
}

/// What the plan says of a node.
#[derive(Clone, Debug)]
pub enum State {
    /// Its result is known.
    Cached(Arc<Known>),
    /// It has to run.
    Due(Box<Due>),
    /// Its key is not known before these instances are.
    Blocked(Vec<usize>),
}

/// States and results, by instance.
pub type Examined = (Vec<State>, Vec<Option<Arc<Known>>>);

/// Looks nodes up. Holds no state of a run.
pub struct Planner<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The store.
    pub store: &'a Store,
    /// This machine.
    pub machine: &'a Machine,
    /// Instances that run though their result is known.
    pub forced: Vec<bool>,
    /// The run that this is for; empty if nothing is going to run.
    pub run: String,
    history: History,
}

impl<'a> Planner<'a> {
    /// A planner that forces nothing.
    pub fn new(pipeline: &'a Pipeline, store: &'a Store, machine: &'a Machine) -> Self {
        store.recall(&pipeline.name);
        let forced = vec![false; pipeline.instances.len()];
        Self { pipeline, store, machine, forced, run: String::new(), history: History::default() }
    }

    /// What is to be done about the instance `index`, given the results `known` so far.
    pub fn examine(
        &self,
        index: usize,
        known: &[Option<Arc<Known>>],
        lock: &Lock,
    ) -> Result<State, PlanError> {
        let instance = &self.pipeline.instances[index];
        let blocked: Vec<usize> = inputs_of(instance).filter(|&input| known[input].is_none()).collect();
        if !blocked.is_empty() {
            return Ok(State::Blocked(blocked));
        }
        let (manifest, source) = match instance.kind.name {
            Download::NAME => self.download(instance, lock)?,
            Report::NAME => (Some(self.report(index, known)?), None),
            _ => (Some(self.ordinary(instance, known)), None),
        };
        let Some(manifest) = manifest else {
            return Ok(State::Due(Box::new(Due {
                manifest: None,
                key: None,
                reason: Reason::Unresolved,
                source,
            })));
        };
        let key = manifest.key();
        let local = local_path(source.as_ref());
        let output = if self.forced[index] { None } else { self.store.peek_output(&key, &manifest.kind)? };
        let reason = if self.forced[index] {
            Reason::Forced
        } else if let Some(Output { tree, location, .. }) = output {
            if location == Location::Stored || local.is_some() {
                return Ok(State::Cached(Arc::new(Known::at(key, tree, location, local))));
            }
            Reason::Elsewhere
        } else {
            let (node, pipeline, run) = (&instance.id, &self.pipeline.name, &self.run);
            self.history
                .explain(self.store, &Subject { key: &key, manifest: &manifest, node, pipeline, run })?
        };
        Ok(State::Due(Box::new(Due { manifest: Some(manifest), key: Some(key), reason, source })))
    }

    /// The wanted nodes at once, as far as results are known without running anything. All nodes that cannot
    /// be planned are told, not only the first.
    pub fn examine_all(&self, lock: &Lock, wanted: &[bool]) -> Result<Examined, Vec<(usize, PlanError)>> {
        let count = self.pipeline.instances.len();
        let mut states: Vec<State> = (0..count).map(|_| State::Blocked(Vec::new())).collect();
        let mut known: Vec<Option<Arc<Known>>> = vec![None; count];
        let mut errors = Vec::new();
        for &index in self.pipeline.order.iter().filter(|&&index| wanted[index]) {
            match self.examine(index, &known, lock) {
                Ok(State::Cached(result)) => {
                    known[index] = Some(Arc::clone(&result));
                    states[index] = State::Cached(result);
                }
                Ok(state) => states[index] = state,
                Err(error) => errors.push((index, error)),
            }
            // What is wrong with a report's rows shows before anything runs.
            if self.pipeline.instances[index].kind.name == Report::NAME
                && let Err(error) = rows::rows(self.pipeline, index)
                && !errors.iter().any(|(known, _)| *known == index)
            {
                errors.push((index, error));
            }
        }
        if errors.is_empty() { Ok((states, known)) } else { Err(errors) }
    }

    /// The source of a download as it stands in the file.
    pub fn source_text(&self, index: usize) -> String {
        let params = &self.pipeline.instances[index].parsed.params;
        let text = Download::TARGETS.into_iter().find_map(|key| params[key].as_str());
        text.unwrap_or_default().to_owned()
    }

    fn ordinary(&self, instance: &Instance, known: &[Option<Arc<Known>>]) -> Manifest {
        let content =
            |index: usize| known[index].as_ref().map_or(Value::Null, |k| k.content.to_string().into());
        let inputs = instance
            .inputs
            .iter()
            .map(|(port, binding)| {
                let value = match binding {
                    Binding::One(index) => content(*index),
                    Binding::Many(list) => list.iter().map(|&index| content(index)).collect(),
                    Binding::Map(map) => Value::Object(
                        map.iter().map(|(name, &index)| (name.clone(), content(index))).collect(),
                    ),
                };
                ((*port).to_owned(), value)
            })
            .collect();
        let runtime = self.machine.runtime(
            &instance.resources,
            self.threads(instance, known),
            instance.parsed.sensitivity,
        );
        Manifest { runtime, ..manifest(instance, instance.parsed.params.clone(), inputs) }
    }

    /// CPU threads of the worker that computes an instance.
    pub fn threads(&self, instance: &Instance, known: &[Option<Arc<Known>>]) -> u32 {
        self.machine.threads(&instance.resources, instance.parsed.cores, model_bytes(instance, known))
    }

    /// A download's key is its content: the same bytes at any path have the same key.
    fn download(
        &self,
        instance: &Instance,
        lock: &Lock,
    ) -> Result<(Option<Manifest>, Option<Resolved>), PlanError> {
        let download: Download = instance.parameters();
        let resolved = source::resolve(&download, &instance.base_dir, self.store.stat_cache(), lock)?;
        let manifest = match &resolved {
            Resolved::Local { tree, .. } => Some(content_manifest(instance, instance.parsed.output, tree)),
            Resolved::Pinned { pin } => Some(content_manifest(instance, instance.parsed.output, pin.tree())),
            Resolved::Unresolved => None,
            Resolved::Random { config, tokenizer } => {
                let params =
                    json!({"artifact": "model", "seed": download.seed.unwrap_or(0), "dtype": download.dtype});
                let mut inputs =
                    BTreeMap::from([("config".to_owned(), config.1.digest().to_string().into())]);
                if let Some((_, tree)) = tokenizer {
                    inputs.insert("tokenizer".to_owned(), tree.digest().to_string().into());
                }
                Some(manifest(instance, params, inputs))
            }
        };
        Ok((manifest, Some(resolved)))
    }

    /// A report's key holds labels and its title, and no names: those are put in when it is written out.
    fn report(&self, index: usize, known: &[Option<Arc<Known>>]) -> Result<Manifest, PlanError> {
        let instance = &self.pipeline.instances[index];
        let (rows, order) = self.report_rows(index, known)?;
        let place_of = |row: usize| order.iter().position(|&other| other == row);
        let content =
            |index: usize| known[index].as_ref().map_or(Value::Null, |k| k.content.to_string().into());
        let ordered = order.iter().map(|&row| &rows[row]);
        let labels: Vec<Value> = ordered
            .clone()
            .map(|row| json!({"label": row.label, "baseline": row.baseline.and_then(place_of)}))
            .collect();
        let report: Report = instance.parameters();
        let mut params = json!({"document": report.document, "title": report.title, "rows": labels});
        // Keys are older than the parameter: its default is left out.
        if report.table != HarnessTable::default() {
            params["table"] = json!(report.table);
        }
        let inputs = BTreeMap::from([
            ("evaluations".to_owned(), ordered.clone().map(|row| content(row.evaluation)).collect()),
            (
                "benchmarks".to_owned(),
                ordered
                    .map(|row| row.benchmarks.iter().map(|&index| content(index)).collect::<Value>())
                    .collect(),
            ),
        ]);
        Ok(manifest(instance, params, inputs))
    }

    /// The rows of a report in the file's order, and the canonical order of the artifact.
    pub fn report_rows(
        &self,
        index: usize,
        known: &[Option<Arc<Known>>],
    ) -> Result<(Vec<Row>, Vec<usize>), PlanError> {
        let rows = rows::rows(self.pipeline, index)?;
        let content = |index: usize| known[index].as_ref().map_or(Digest::of(b""), |k| k.content);
        let order = rows::canonical_order(&rows, &content);
        Ok((rows, order))
    }
}

/// The manifest of a node whose bytes are the same everywhere.
fn manifest(instance: &Instance, params: Value, inputs: BTreeMap<String, Value>) -> Manifest {
    Manifest {
        schema: SCHEMA,
        kind: instance.kind.name.to_owned(),
        version: instance.kind.version,
        params,
        inputs,
        runtime: BTreeMap::new(),
    }
}

/// Bytes of the models that an instance is given; 0 where there is none, or it is not known yet.
pub fn model_bytes(instance: &Instance, known: &[Option<Arc<Known>>]) -> u64 {
    let bytes_of = |port: &str| match instance.inputs.get(port) {
        Some(Binding::One(model)) => known[*model].as_ref().map_or(0, |known| known.output.total_size()),
        _ => 0,
    };
    bytes_of("model") + bytes_of("reference")
}

/// The manifest of something whose content is known.
pub fn content_manifest(instance: &Instance, artifact: Artifact, tree: &Tree) -> Manifest {
    let params = json!({"artifact": artifact.to_string(), "content": tree.digest().to_string()});
    manifest(instance, params, BTreeMap::new())
}

/// All instances that `instance` reads.
pub fn inputs_of(instance: &Instance) -> impl Iterator<Item = usize> + '_ {
    instance.inputs.values().flat_map(Binding::iter)
}

fn local_path(source: Option<&Resolved>) -> Option<&PathBuf> {
    match source {
        Some(Resolved::Local { path, .. }) => Some(path),
        _ => None,
    }
}
