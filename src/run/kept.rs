//! Failures that would come again are kept in the store: the next run says so at once instead of finding out.

use qpipe_cache::{Claim, Digest, KeptFailure, Store};
use qpipe_nodes::protocol::Failure;

use super::job::NodeFailure;
use super::shared::Shared;
use super::worker::worker_path;

/// Keeps `failure` if the same inputs give it every time. A store that cannot be written loses nothing but time.
pub(super) fn keep(claim: Claim, failure: &NodeFailure, shared: &Shared<'_>) {
    if failure.class != Failure::Deterministic {
        return;
    }
    let Some(program) = program(shared.store) else { return };
    let kept = KeptFailure {
        message: failure.message.clone(),
        help: failure.help.clone(),
        run: shared.run().to_owned(),
        program,
    };
    if let Err(error) = claim.keep_failure(&kept) {
        tracing::debug!("a failure is not kept: {error}");
    }
}

/// What a kept failure of `key` says of `node`. One of another build of the worker does not count: the cause may
/// be mended.
pub(super) fn recall(store: &Store, key: &Digest, node: &str) -> Result<Option<NodeFailure>, NodeFailure> {
    let Some(kept) = store.failure_of(key)? else { return Ok(None) };
    if program(store) != Some(kept.program) {
        return Ok(None);
    }
    let again = format!("`--force {node}` tries the same again.");
    let help = kept.help.map_or_else(|| again.clone(), |help| format!("{help} {again}"));
    let message = format!("{} (as in run {}; not tried again)", kept.message, kept.run);
    Ok(Some(NodeFailure::new(Failure::Deterministic, message, Some(help))))
}

/// The worker's content.
fn program(store: &Store) -> Option<Digest> {
    store.stat_cache().digest_file(&worker_path()).ok().map(|(digest, _)| digest)
}
