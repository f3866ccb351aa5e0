//! Nodes that qpipe computes itself: downloads and reports. No tensors.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_cache::{Claim, Digest, Lookup, Manifest, Meta, Record, StoreError, Tree};
use qpipe_nodes::data_files;
use qpipe_nodes::kinds::{Download, Report, Source as Where};
use qpipe_nodes::protocol::{Failure, OUT};
use serde_json::Value;

use super::event::Event;
use super::inputs::materialise_one;
use super::job::{Job, NodeFailure, Outcome, Source, Work};
use super::shared::Shared;
use super::slot::{patient_lookup, stored_lookup};
use crate::fetch::{self, Pin};
use crate::pipeline::Instance;
use crate::plan::{Known, content_manifest, lock_name, pin_of};
use crate::report::{self, RowInput};

/// What qpipe does itself.
pub(super) enum LocalWork {
    /// Takes note of a file or folder of the user's.
    Reference {
        /// Where.
        path: PathBuf,
        /// What it holds.
        tree: Tree,
    },
    /// Gets bytes from elsewhere.
    Fetch(Box<Remote>),
    /// Compares evaluations.
    Report {
        /// Its parameters.
        parameters: Report,
        /// The rows in canonical order.
        rows: Vec<ReportRow>,
    },
}

/// A remote source.
pub(super) struct Remote {
    /// The node's parameters.
    pub download: Download,
    /// The instance, for the manifest that its content gives.
    pub instance: Instance,
    /// What the lock file says of it.
    pub pin: Option<Pin>,
}

/// A row of a report.
pub(super) struct ReportRow {
    /// The evaluation.
    pub evaluation: Source,
    /// The benchmarks.
    pub benchmarks: Vec<Source>,
    /// The row's label.
    pub label: Option<String>,
    /// The row it is compared with.
    pub baseline: Option<usize>,
}

impl LocalWork {
    /// Of a reference: the tree that is recorded without copying.
    pub(super) fn external(&self) -> Option<&Tree> {
        match self {
            Self::Reference { tree, .. } => Some(tree),
            _ => None,
        }
    }

    /// Of a pinned source: what its key says that comes out.
    pub(super) fn pinned(&self) -> Option<&Pin> {
        match self {
            Self::Fetch(remote) => remote.pin.as_ref(),
            _ => None,
        }
    }

    /// Of a reference: where its files are.
    pub(super) fn local_path(&self) -> Option<&PathBuf> {
        match self {
            Self::Reference { path, .. } => Some(path),
            _ => None,
        }
    }
}

/// Computes `work` into the claim's `out/`.
pub(super) fn run(
    work: &LocalWork,
    claim: &Claim,
    job: &Job,
    shared: &Shared<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<BTreeMap<String, Value>, NodeFailure> {
    let out = claim.staging().join(OUT);
    match work {
        LocalWork::Reference { .. } => {}
        LocalWork::Fetch(remote) => {
            let partial = partial_folder(shared, claim);
            download(remote, &partial, &job.node, shared, tell)?;
            replace_folder(&partial, &out)?;
        }
        LocalWork::Report { parameters, rows } => {
            fs::create_dir_all(&out)?;
            let inputs = claim.staging().join("inputs");
            let place =
                |source: &Source, name: String| materialise_one(shared.store, source, &inputs.join(name));
            let rows = rows
                .iter()
                .enumerate()
                .map(|(index, row)| {
                    let benchmarks = row
                        .benchmarks
                        .iter()
                        .enumerate()
                        .map(|(number, source)| place(source, format!("benchmark/{index}/{number}")))
                        .collect::<Result<_, _>>()?;
                    Ok(RowInput {
                        evaluation: place(&row.evaluation, format!("evaluation/{index}"))?,
                        benchmarks,
                        label: row.label.clone(),
                        baseline: row.baseline,
                    })
                })
                .collect::<Result<Vec<_>, NodeFailure>>()?;
            let title = parameters.title.as_deref().unwrap_or_default();
            let mut comparison = report::compare(&rows, title)?;
            comparison.document = parameters.document;
            comparison.table = parameters.table;
            fs::write(out.join(report::REPORT_FILE), comparison.to_json()?)?;
        }
    }
    Ok(BTreeMap::new())
}

/// Gets a remote source that is not pinned: what it is decides its key. One process asks, others wait; the
/// lock file then says what it is.
pub(super) fn fetch(
    job: &Job,
    shared: &Shared<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Outcome, NodeFailure> {
    let Work::Local(LocalWork::Fetch(remote)) = &job.work else {
        return Err(NodeFailure::new(Failure::Deterministic, "only remote sources have no key", None));
    };
    let Some(source) = lock_name(&remote.download) else {
        return Err(NodeFailure::new(Failure::User, "the download names no source", None));
    };
    let turn = Digest::of(format!("download\0{source}").as_bytes());
    let mut quiet = |_: &str| {};
    let turn = match patient_lookup(shared.store, &turn, &job.kind, shared, &mut quiet)? {
        Some(Lookup::Miss(claim)) => claim,
        // Nothing is ever recorded under a turn's key.
        Some(Lookup::Hit(_)) | None => return Ok(Outcome::Stopped),
    };
    tell(Event::NodeStarted {
        node: job.node.clone(),
        kind: job.kind.clone(),
        key: String::new(),
        reason: job.reason.clone(),
    });
    let asked_into = partial_folder(shared, &turn);
    // Another process may have asked while this one waited for its turn; then that answer holds.
    let lock = fetch::Lock::load(&shared.lock_path).map_err(of_fetch)?;
    let known = pin_of(&lock, &remote.download).cloned();
    let remote =
        &Remote { download: remote.download.clone(), instance: remote.instance.clone(), pin: known.clone() };
    let was_known = known.is_some();
    let pin = match known {
        Some(pin) => pin,
        None => {
            let revision = download(remote, &asked_into, &job.node, shared, tell)?;
            let tree = shared.store.stat_cache().digest_tree(&asked_into, &|_| true)?;
            Pin::new(revision, &tree)
        }
    };
    let manifest = content_manifest(&remote.instance, remote.instance.parsed.output, pin.tree());
    let record = match stored_lookup(shared.store, &manifest.key(), &job.kind, shared, &mut quiet)? {
        None => return Ok(Outcome::Stopped),
        Some(Lookup::Hit(record)) => record,
        Some(Lookup::Miss(content)) => {
            let folder = if was_known { partial_folder(shared, &content) } else { asked_into.clone() };
            if was_known {
                download(remote, &folder, &job.node, shared, tell)?;
            }
            replace_folder(&folder, &content.staging().join(OUT))?;
            let meta = shared.meta(&job.node, 0.0, BTreeMap::new());
            commit_pinned(content, manifest, &pin, shared, meta)?
        }
    };
    if asked_into.exists() {
        // The same bytes were there under another name, or came by a pin.
        fs::remove_dir_all(&asked_into)?;
    }
    {
        let mut lock = shared.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        lock.merge_from(&shared.lock_path).map_err(of_fetch)?;
        if lock.set(&source, pin) {
            lock.save(&shared.lock_path).map_err(of_fetch)?;
        }
    }
    drop(turn);
    Ok(Outcome::Ran(Known::of(record, None)))
}

/// Publishes what was downloaded, if it is what the pin says.
pub(super) fn commit_pinned(
    claim: Claim,
    manifest: Manifest,
    pin: &Pin,
    shared: &Shared<'_>,
    meta: Meta,
) -> Result<Record, NodeFailure> {
    claim.commit_expected(manifest, pin.tree(), meta).map_err(|error| match error {
        StoreError::OtherOutput { .. } => {
            let lock = shared.lock_path.display();
            let message = format!("what was downloaded is not what `{lock}` says");
            let help = format!("Remove the source's lines from `{lock}` if the other bytes are right.");
            NodeFailure::new(Failure::User, message, Some(help))
        }
        error => error.into(),
    })
}

/// Where a source is downloaded to: not in the staging folder, which does not outlive an attempt, so that a
/// download goes on where it broke off. It has the name of the key that `claim` holds: nobody else writes there.
fn partial_folder(shared: &Shared<'_>, claim: &Claim) -> PathBuf {
    shared.store.root().join("downloads").join(claim.key().to_string())
}

fn replace_folder(from: &Path, to: &Path) -> Result<(), NodeFailure> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::rename(from, to)?;
    Ok(())
}

/// Downloads into `folder`, which then holds nothing else; returns what the lock file calls the revision: a commit of the
/// Hub's, the digest that is asked of a file from the web.
fn download(
    remote: &Remote,
    folder: &Path,
    node: &str,
    shared: &Shared<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Option<String>, NodeFailure> {
    fs::create_dir_all(folder)?;
    let mut progress = |done: u64, total: Option<u64>| {
        tell(Event::Progress {
            node: node.to_owned(),
            done,
            total: total.unwrap_or(0),
            unit: "bytes".to_owned(),
            note: None,
        });
        if shared.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match remote.download.source() {
        Some(Where::Hub { repo_type, repo, revision }) => {
            let request = fetch::HubRequest {
                repo_type: repo_type.to_owned(),
                repo,
                revision: remote.pin.as_ref().and_then(|pin| pin.revision.clone()).unwrap_or(revision),
                artifact: remote.instance.parsed.output,
            };
            let resolved =
                fetch::fetch_hub(&request, folder, remote.pin.as_ref(), &mut progress).map_err(of_fetch)?;
            Ok(Some(resolved.revision))
        }
        Some(Where::Http(url)) => {
            // What is pinned keeps its name: it is part of the content.
            let pinned = remote.pin.as_ref().and_then(|pin| pin.tree().files.keys().next().cloned());
            let pinned = pinned.filter(|name| !name.contains('/'));
            let extension = data_files::extension_of_address(&url);
            let Some(name) = pinned.or_else(|| Some(format!("data.{}", extension?))) else {
                return Err(NodeFailure::new(Failure::User, "the address ends in no known extension", None));
            };
            let Some(digest) = remote.download.digest.as_deref() else {
                return Err(NodeFailure::new(Failure::User, "a web address needs a `digest`", None));
            };
            fetch::fetch_http(&url, digest, &folder.join(&name), &mut progress).map_err(of_fetch)?;
            keep_only(folder, &name)?;
            Ok(remote.download.digest.clone())
        }
        _ => Err(NodeFailure::new(Failure::Deterministic, "this source is not fetched", None)),
    }
}

/// Removes what an attempt with another digest may have left beside the file `name`.
fn keep_only(folder: &Path, name: &str) -> Result<(), NodeFailure> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != name {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn of_fetch(error: fetch::FetchError) -> NodeFailure {
    NodeFailure::new(error.class(), error.to_string(), error.help())
}

impl From<std::io::Error> for NodeFailure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Failure::Surroundings, error.to_string(), None)
    }
}
