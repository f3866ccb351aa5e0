//! What the store remembers of an action that was done, and how that is written.
//!
//! A record file is two lines of JSON: the record, and a string that is the blake3 digest of the first
//! line. A record that was torn or altered does not pass and counts as absent, so it is never a hit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Manifest, StoreError, Tree};

/// Length of the last line: a quoted digest and a line feed.
const TRAILER: usize = 64 + 2 + 1;

/// Where the bytes of an output are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// In the store, one blob a file.
    Stored,
    /// Where the user has them: a local folder is referenced, not copied.
    External,
}

/// Facts about the run that produced an output. In no key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The node's name in its file.
    pub node: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The run's id.
    pub run: String,
    /// When it finished, seconds since 1970.
    pub finished_unix: f64,
    /// How long it took, in seconds of wall time.
    pub seconds: f64,
    /// The machine's name.
    pub host: String,
    /// Figures that the node reported: peak memory, tokens.
    pub facts: BTreeMap<String, Value>,
}

/// An action that was done: its key, the manifest behind the key, its output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`Manifest::key`].
    pub key: Digest,
    /// What the action was.
    pub manifest: Manifest,
    /// What came out.
    pub output: Tree,
    /// Where that is.
    pub location: Location,
    /// Who did it, when.
    pub meta: Meta,
}

impl Record {
    /// The record file's bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let bytes =
            serde_json::to_vec(self).map_err(|source| StoreError::Encode { key: self.key, source })?;
        Ok(seal(bytes))
    }

    /// Reads a record file's bytes; `None` for anything that was not written as it stands.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(sound_body(bytes)?).ok()
    }
}

/// What came out of an action: the part of a [`Record`] that those who only need the result read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Output {
    pub(crate) key: Digest,
    /// The files.
    #[serde(rename = "output")]
    pub tree: Tree,
    /// Where their bytes are.
    pub location: Location,
}

impl Output {
    /// [`Record::decode`] without the manifest and the facts, at a third of its cost.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(sound_body(bytes)?).ok()
    }
}

/// A line of JSON, followed by the line that is its digest.
pub(crate) fn seal(mut body: Vec<u8>) -> Vec<u8> {
    let trailer = format!("\n\"{}\"\n", Digest::of(&body));
    body.extend_from_slice(trailer.as_bytes());
    body
}

/// The first line of a record file, if the second is its digest.
pub(crate) fn sound_body(bytes: &[u8]) -> Option<&[u8]> {
    let (body, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER + 1)?)?;
    let digest = trailer.strip_prefix(b"\n\"")?.strip_suffix(b"\"\n")?;
    let digest: Digest = str::from_utf8(digest).ok()?.parse().ok()?;
    (Digest::of(body) == digest).then_some(body)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Entry;

    fn record() -> Record {
        let manifest = Manifest {
            schema: 1,
            kind: "evaluate".to_owned(),
            version: 1,
            params: json!({"tasks": ["mcqa"], "learning_rate": 3e-4}),
            inputs: BTreeMap::new(),
            runtime: BTreeMap::new(),
        };
        Record {
            key: manifest.key(),
            manifest,
            output: Tree {
                files: BTreeMap::from([("a".to_owned(), Entry { digest: Digest::of(b"a"), size: 1 })]),
            },
            location: Location::Stored,
            meta: Meta {
                node: "scores[gptq[n=20]]".to_owned(),
                pipeline: "quickstart".to_owned(),
                run: "20261122-1".to_owned(),
                finished_unix: 1_795_327_200.123_456_7,
                seconds: 0.1,
                host: "box".to_owned(),
                facts: BTreeMap::from([("tokens".to_owned(), json!(12))]),
            },
        }
    }

    #[test]
    fn bytes_round_trip_and_are_lines_of_json() {
        let bytes = record().encode().unwrap();
        assert_eq!(Record::decode(&bytes).unwrap(), record());
        let output = Output::decode(&bytes).unwrap();
        assert_eq!(
            (output.key, output.tree, output.location),
            (record().key, record().output, record().location)
        );
        let lines: Vec<Value> =
            str::from_utf8(&bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn torn_or_altered_bytes_are_no_record() {
        let bytes = record().encode().unwrap();
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length]), None, "torn at {length}");
        }
        for index in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[index] ^= 1;
            assert_eq!(Record::decode(&altered), None, "byte {index} altered");
            assert_eq!(Output::decode(&altered), None, "byte {index} altered");
        }
    }
}
