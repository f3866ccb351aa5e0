//! What a worker reads: folders made of a claim's inputs, and whether the user's own files kept still meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_cache::{Claim, Store, StoreError};
use qpipe_nodes::protocol::{Failure, Input};

use super::job::{Binding, NodeFailure, Source};
use crate::plan::Place;

/// Makes folders of the inputs, under `staging/inputs/PORT`: links to read-only blobs, or the user's own paths.
pub(super) fn materialise(
    store: &Store,
    claim: &Claim,
    inputs: &BTreeMap<String, Binding>,
) -> Result<BTreeMap<String, Input>, NodeFailure> {
    let folder = inputs_folder(claim);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let place = |source: &Source, name: &str| -> Result<PathBuf, NodeFailure> {
        materialise_one(store, source, &folder.join(name))
    };
    let mut made = BTreeMap::new();
    for (port, binding) in inputs {
        let input = match binding {
            Binding::One(source) => Input::One(place(source, port)?),
            Binding::Many(list) => Input::Many(
                list.iter()
                    .enumerate()
                    .map(|(i, s)| place(s, &format!("{port}/{i}")))
                    .collect::<Result<_, _>>()?,
            ),
            Binding::Map(map) => Input::Map(
                map.iter()
                    .map(|(name, s)| Ok((name.clone(), place(s, &format!("{port}/{name}"))?)))
                    .collect::<Result<_, NodeFailure>>()?,
            ),
        };
        made.insert(port.clone(), input);
    }
    Ok(made)
}

/// Where a claim's inputs are laid out, a file or folder a port.
pub(super) fn inputs_folder(claim: &Claim) -> PathBuf {
    claim.staging().join("inputs")
}

/// The path of one artifact: the user's own, or a folder of links at `destination`.
pub(super) fn materialise_one(
    store: &Store,
    source: &Source,
    destination: &Path,
) -> Result<PathBuf, NodeFailure> {
    match &source.place {
        Place::Path(path) => path
            .canonicalize()
            .map_err(|error| NodeFailure::new(Failure::User, format!("{}: {error}", path.display()), None)),
        Place::Store => {
            store.materialise(&source.tree, destination)?;
            Ok(destination.to_owned())
        }
    }
}

/// Whether the user's own files among `inputs` still are what the key says: a checkpoint that is being copied
/// over, or data that somebody edits during a run, must not leave a result under the key of what was there before.
pub(super) fn check_unchanged(store: &Store, inputs: &BTreeMap<String, Binding>) -> Result<(), NodeFailure> {
    let sources = inputs.values().flat_map(|binding| match binding {
        Binding::One(source) => vec![source],
        Binding::Many(list) => list.iter().collect(),
        Binding::Map(map) => map.values().collect(),
    });
    for source in sources {
        let Place::Path(path) = &source.place else { continue };
        let listed = |name: &str| source.tree.files.contains_key(name);
        let now = store.stat_cache().digest_tree(path, &listed);
        if !now.is_ok_and(|now| now == source.tree) {
            return Err(StoreError::Changing { path: path.clone() }.into());
        }
    }
    Ok(())
}
