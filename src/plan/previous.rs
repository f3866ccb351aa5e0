//! An earlier, smaller result that a calibration goes on from. It decides how long the node takes, not what comes
//! out, so it is in no key.

use std::collections::BTreeMap;
use std::sync::Arc;

use qpipe_cache::{Manifest, Output, Store, StoreError};
use qpipe_nodes::kinds::Calibrate;

use super::planner::Known;
use super::reason::COMPARED;
use crate::pipeline::{Instance, Pipeline};

/// A smaller calibration of the same model, data and order.
#[derive(Clone, Debug)]
pub struct Previous {
    /// On so many samples.
    pub samples: u32,
    /// Where it is.
    pub result: Arc<Known>,
}

/// The largest whole result in `store` that the node with this manifest can go on from, whoever made it.
pub fn previous(store: &Store, manifest: &Manifest) -> Result<Option<Previous>, StoreError> {
    let Some(wanted) = calibration(manifest) else { return Ok(None) };
    let mut found = Vec::new();
    for record in store.records_of(&manifest.kind, COMPARED)? {
        let earlier = &record.manifest;
        let same = (earlier.schema, earlier.version, &earlier.inputs, &earlier.runtime)
            == (manifest.schema, manifest.version, &manifest.inputs, &manifest.runtime);
        if let Some(smaller) = calibration(earlier).filter(|smaller| same && wanted.goes_on_from(smaller)) {
            found.push((smaller.samples, record.key));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    for (samples, key) in found {
        // Blobs may be gone.
        if let Some(Output { tree, location, .. }) = store.peek_output(&key, &manifest.kind)? {
            let result = Arc::new(Known::at(key, tree, location, None));
            return Ok(Some(Previous { samples, result }));
        }
    }
    Ok(None)
}

fn calibration(manifest: &Manifest) -> Option<Calibrate> {
    let is_one = manifest.kind == <Calibrate as qpipe_nodes::Kind>::NAME;
    is_one.then(|| serde_json::from_value(manifest.params.clone()).ok()).flatten()
}

/// For each of the `wanted` calibrations the largest other one that it can go on from: it had better run after it.
pub fn chains(pipeline: &Pipeline, wanted: &[bool]) -> Vec<Option<usize>> {
    let mut before = vec![None; pipeline.instances.len()];
    let mut alike: BTreeMap<String, Vec<(u32, usize, Calibrate)>> = BTreeMap::new();
    for (index, instance) in pipeline.instances.iter().enumerate().filter(|&(index, _)| wanted[index]) {
        if let Some(calibration) = of_instance(instance) {
            let inputs = format!("{:?} {:?}", instance.inputs, instance.resources);
            alike.entry(inputs).or_default().push((calibration.samples, index, calibration));
        }
    }
    for mut group in alike.into_values() {
        group.sort_by_key(|(samples, index, _)| (*samples, *index));
        for (place, (_, index, larger)) in group.iter().enumerate() {
            let smaller = group[..place].iter().rev().find(|(_, _, smaller)| larger.goes_on_from(smaller));
            before[*index] = smaller.map(|(_, index, _)| *index);
        }
    }
    before
}

fn of_instance(instance: &Instance) -> Option<Calibrate> {
    let is_one = instance.kind.name == <Calibrate as qpipe_nodes::Kind>::NAME;
    is_one.then(|| serde_json::from_value(instance.parsed.params.clone()).ok()).flatten()
}
