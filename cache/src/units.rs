//! Finished parts of a long action, kept over crashes.
//!
//! A worker renames a unit into `units/`; its digest is then appended to `units.log`. The next claim on the
//! key takes over the units whose digest is listed and right, from whatever attempts are there.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::{Digest, StoreError, layout};

const UNITS: &str = "units";
const LOG: &str = "units.log";

/// The units of one attempt.
#[derive(Debug)]
pub(crate) struct Units {
    attempt: PathBuf,
}

impl Units {
    /// Those below the folder `attempt`.
    pub(crate) fn of(attempt: &Path) -> Self {
        Self { attempt: attempt.to_owned() }
    }

    /// The folder that the worker writes them to.
    pub(crate) fn folder(&self) -> PathBuf {
        self.attempt.join(UNITS)
    }

    fn log(&self) -> PathBuf {
        self.attempt.join(LOG)
    }

    /// Makes the unit `name`, which is in the folder, and its digest durable. A unit that the worker has
    /// already dropped again, because a later one replaces it, is no error.
    pub(crate) fn record(&self, name: &str) -> Result<(), StoreError> {
        if !layout::is_plain_name(name) || name.contains('\n') {
            return Err(StoreError::BadPath { path: name.to_owned() });
        }
        let path = self.folder().join(name);
        let digest = match fs::File::open(&path)
            .and_then(|file| file.sync_all().and_then(|()| Digest::of_file(&path)))
        {
            Ok(digest) => digest,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::debug!(%name, "the unit is gone already");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        fs::File::open(self.folder())?.sync_all().map_err(StoreError::writing)?;
        self.append(&[(name, digest)])
    }

    /// Moves the sound units of an earlier attempt here; returns their names, sorted. Listed first and
    /// moved then: a crash in between leaves each unit listed wherever it is.
    pub(crate) fn take_over(&self, earlier: &Self) -> Result<Vec<String>, StoreError> {
        let mut sound = Vec::new();
        for (name, digest) in earlier.listed() {
            let path = earlier.folder().join(&name);
            if !path.is_file() || self.folder().join(&name).exists() {
                continue;
            }
            if Digest::of_file(&path)? == digest {
                sound.push((name, digest));
            } else {
                tracing::debug!(unit = %name, "the unit does not match its digest and is dropped");
            }
        }
        if sound.is_empty() {
            return Ok(Vec::new());
        }
        let listed: Vec<(&str, Digest)> =
            sound.iter().map(|(name, digest)| (name.as_str(), *digest)).collect();
        self.append(&listed)?;
        for (name, _) in &sound {
            fs::rename(earlier.folder().join(name), self.folder().join(name)).map_err(StoreError::writing)?;
        }
        Ok(sound.into_iter().map(|(name, _)| name).collect())
    }

    /// The last digest of each unit in the log. A torn line is skipped.
    fn listed(&self) -> BTreeMap<String, Digest> {
        let text = match fs::read(self.log()) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => return BTreeMap::new(),
        };
        text.lines()
            .filter_map(|line| {
                let (digest, name) = line.split_once(' ')?;
                (layout::is_plain_name(name)).then_some((name.to_owned(), digest.parse().ok()?))
            })
            .collect()
    }

    fn append(&self, units: &[(&str, Digest)]) -> Result<(), StoreError> {
        let lines: String = units.iter().map(|(name, digest)| format!("{digest} {name}\n")).collect();
        let mut file =
            fs::OpenOptions::new().append(true).create(true).open(self.log()).map_err(StoreError::writing)?;
        file.write_all(lines.as_bytes()).and_then(|()| file.sync_all()).map_err(StoreError::writing)
    }
}
