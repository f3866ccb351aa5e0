//! From a node that is due to the job a slot is given.

use std::collections::BTreeMap;
use std::sync::Arc;

use qpipe_cache::Manifest;
use qpipe_nodes::kinds::{Calibrate, Download, Report, Sft};
use qpipe_nodes::protocol::{Device, Failure};
use qpipe_nodes::{Host, Kind};

use super::job::{Binding, Job, NodeFailure, Source, Work};
use super::local::{LocalWork, Remote, ReportRow};
use crate::pipeline;
use crate::plan::{self, Due, Known, Planner, Previous, Resolved};

/// Memory of a node beside its model: libtorch, activations of a small batch.
const BASE_MEMORY: u64 = 512 << 20;

/// Kinds that take a model block by block where it does not fit.
const BLOCK_BY_BLOCK: [&str; 1] = [Calibrate::NAME];

/// The job that computes `due`.
pub(super) fn build_job(
    planner: &Planner<'_>,
    index: usize,
    due: Due,
    known: &[Option<Arc<Known>>],
    max_memory: Option<u64>,
) -> Result<Job, NodeFailure> {
    let instance = &planner.pipeline.instances[index];
    if instance.parsed.host == Host::Worker
        && let Some((problem, help)) = planner.machine.lacks(&instance.resources)
    {
        return Err(NodeFailure::new(Failure::Surroundings, problem, Some(help.to_owned())));
    }
    let memory = memory(planner, index, known, max_memory);
    let mut reason = due.reason.to_string();
    let work = match (instance.kind.name, due.source) {
        (Download::NAME, Some(source)) => download(planner, index, source),
        (Report::NAME, _) => report(planner, index, known)?,
        _ => {
            let mut inputs = inputs(instance, known)?;
            // Somebody who forces a node wants all of it to be computed.
            let manifest = due.manifest.as_ref().filter(|_| !planner.forced[index]);
            if let Some(earlier) = manifest.and_then(|manifest| previous(planner, manifest)) {
                reason += &format!(", continued from {} samples", earlier.samples);
                let source = Source::of(&earlier.result);
                inputs.insert(Calibrate::PREVIOUS.to_owned(), Binding::One(source));
            }
            worker(planner, instance, known, inputs)
        }
    };
    Ok(Job {
        index,
        node: instance.id.clone(),
        kind: instance.kind.name.to_owned(),
        sensitivity: instance.parsed.sensitivity,
        keyed: due.manifest.zip(due.key),
        reason,
        forced: planner.forced[index],
        work,
        memory,
        max_memory: max_memory.map(|_| memory),
    })
}

/// A smaller calibration to go on from. Without one, or where the store cannot be read, the node starts anew.
fn previous(planner: &Planner<'_>, manifest: &Manifest) -> Option<Previous> {
    plan::previous(planner.store, manifest).unwrap_or_else(|error| {
        tracing::warn!(%error, "earlier calibrations cannot be looked through");
        None
    })
}

/// Bytes that the node is expected to need: a worker holds its model; training all parameters holds float32
/// weights, gradients and two moments as well. A node that can do with less makes do with `max_memory`.
pub(super) fn memory(
    planner: &Planner<'_>,
    index: usize,
    known: &[Option<Arc<Known>>],
    max_memory: Option<u64>,
) -> u64 {
    let instance = &planner.pipeline.instances[index];
    if instance.parsed.host == Host::Qpipe {
        return 0;
    }
    let model = plan::model_bytes(instance, known);
    let full_training = instance.kind.name == Sft::NAME && instance.parsed.params["lora"].is_null();
    let factor = if full_training { 10 } else { 3 };
    let expected = BASE_MEMORY + factor * model;
    match max_memory {
        Some(max) if BLOCK_BY_BLOCK.contains(&instance.kind.name) => expected.min(max),
        _ => expected,
    }
}

/// Cores that an instance keeps busy. None where qpipe itself or a GPU computes it.
pub(super) fn cores(planner: &Planner<'_>, index: usize, known: &[Option<Arc<Known>>]) -> u32 {
    let instance = &planner.pipeline.instances[index];
    match (instance.parsed.host, planner.machine.device(&instance.resources)) {
        (Host::Worker, Device::Cpu) => planner.threads(instance, known),
        _ => 0,
    }
}

fn worker(
    planner: &Planner<'_>,
    instance: &pipeline::Instance,
    known: &[Option<Arc<Known>>],
    inputs: BTreeMap<String, Binding>,
) -> Work {
    let mut params = instance.parsed.params.clone();
    pipeline::put_back(&mut params, &instance.task_origins);
    Work::Worker {
        params,
        inputs,
        device: planner.machine.device(&instance.resources),
        threads: planner.threads(instance, known),
    }
}

fn inputs(
    instance: &pipeline::Instance,
    known: &[Option<Arc<Known>>],
) -> Result<BTreeMap<String, Binding>, NodeFailure> {
    instance
        .inputs
        .iter()
        .map(|(port, binding)| {
            let binding = match binding {
                pipeline::Binding::One(index) => Binding::One(source(*index, known)?),
                pipeline::Binding::Many(list) => {
                    Binding::Many(list.iter().map(|&index| source(index, known)).collect::<Result<_, _>>()?)
                }
                pipeline::Binding::Map(map) => Binding::Map(
                    map.iter()
                        .map(|(name, &index)| Ok((name.clone(), source(index, known)?)))
                        .collect::<Result<_, NodeFailure>>()?,
                ),
            };
            Ok(((*port).to_owned(), binding))
        })
        .collect()
}

fn source(index: usize, known: &[Option<Arc<Known>>]) -> Result<Source, NodeFailure> {
    known[index].as_ref().map(|known| Source::of(known)).ok_or_else(|| {
        NodeFailure::new(Failure::Deterministic, "an input of this node is not known yet", None)
    })
}

fn download(planner: &Planner<'_>, index: usize, source: Resolved) -> Work {
    let instance = &planner.pipeline.instances[index];
    let fetch = |pin| {
        let remote = Remote { download: instance.parameters(), instance: instance.clone(), pin };
        Work::Local(LocalWork::Fetch(Box::new(remote)))
    };
    match source {
        Resolved::Local { path, tree } => Work::Local(LocalWork::Reference { path, tree }),
        Resolved::Pinned { pin } => fetch(Some(pin)),
        Resolved::Unresolved => fetch(None),
        Resolved::Random { config, tokenizer } => {
            let mut inputs =
                BTreeMap::from([("config".to_owned(), Binding::One(Source::at(config.0, config.1)))]);
            if let Some((path, tree)) = tokenizer {
                inputs.insert("tokenizer".to_owned(), Binding::One(Source::at(path, tree)));
            }
            worker(planner, instance, &[], inputs)
        }
    }
}

fn report(planner: &Planner<'_>, index: usize, known: &[Option<Arc<Known>>]) -> Result<Work, NodeFailure> {
    let instance = &planner.pipeline.instances[index];
    let (rows, order) = planner.report_rows(index, known)?;
    let place_of = |row: usize| order.iter().position(|&other| other == row);
    let ordered = order
        .iter()
        .map(|&row| {
            let row = &rows[row];
            Ok(ReportRow {
                evaluation: source(row.evaluation, known)?,
                benchmarks: row
                    .benchmarks
                    .iter()
                    .map(|&index| source(index, known))
                    .collect::<Result<_, _>>()?,
                label: row.label.clone(),
                baseline: row.baseline.and_then(place_of),
            })
        })
        .collect::<Result<Vec<_>, NodeFailure>>()?;
    Ok(Work::Local(LocalWork::Report { parameters: instance.parameters(), rows: ordered }))
}
