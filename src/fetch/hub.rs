//! Repositories of the Hugging Face Hub, through its HTTP interface.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_nodes::Artifact;
use serde::Deserialize;
use ureq::Body;
use ureq::http::Response;

use super::client::{Client, Failed, header_text};
use super::transfer::{RemoteFile, offset_by, transfer};
use super::wanted::{description, suffices};
use super::{Checksum, FetchError, Pin, Progress, endpoint, http, wanted_file};

pub(super) const PUBLIC_ENDPOINT: &str = "https://huggingface.co";
/// A listing of a repository with a hundred thousand files stays below this (bytes).
const LONGEST_LISTING: u64 = 64 << 20;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRequest {
    /// `models` or `datasets`.
    pub repo_type: String,
    /// `org/name`, or `name` for the few that have no owner.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Decides which of the repository's files are taken.
    pub artifact: Artifact,
}

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The commit (40 hexadecimal digits).
    pub revision: String,
}

/// A server that speaks the Hub's interface, and who asks.
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    client: Client,
    offline: bool,
}

impl Hub {
    /// The server at `endpoint` (scheme and host), asked with `token`.
    pub fn new(endpoint: &str, token: Option<String>, client: Client) -> Self {
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token, client, offline: false }
    }

    /// As the Hub's own tools find it: `HF_ENDPOINT`; the token in `HF_TOKEN`, else in the file that
    /// `huggingface-cli login` writes (`HF_TOKEN_PATH`, `HF_HOME/token`, `~/.cache/huggingface/token`); `HF_HUB_OFFLINE`.
    pub fn from_environment() -> Self {
        let token = text_variable("HF_TOKEN").or_else(|| {
            let text = fs::read_to_string(token_file()?).ok()?;
            Some(text.trim().to_owned()).filter(|token| !token.is_empty())
        });
        let offline = text_variable("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"));
        Self { offline, ..Self::new(&endpoint(), token, Client::default()) }
    }

    /// Brings the wanted files of a repository into the folder `destination`, which then holds exactly these.
    /// With a `pin`, the files it lists are fetched at its revision and verified against its digests, without asking what the
    /// revision is; otherwise the Hub is asked for the commit, the files and their digests.
    ///
    /// A `destination` left by an attempt that broke off is taken up: what is complete stays.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn fetch(
        &self,
        request: &HubRequest,
        destination: &Path,
        pin: Option<&Pin>,
        progress: &mut Progress<'_>,
    ) -> Result<Resolved, FetchError> {
        if self.offline {
            return Err(FetchError::Offline { url: format!("{}/{}", self.endpoint, request.repo) });
        }
        let listing = match pin {
            Some(pin) => Listing::of_pin(pin, &request.revision),
            None => self.list(request, progress)?,
        };
        let total: Option<u64> = listing.files.iter().map(|file| file.size).sum();
        let mut done = 0;
        for file in &listing.files {
            let path = destination.join(checked(&file.path)?);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let remote = RemoteFile {
                url: self.file_url(request, &listing.revision, &file.path),
                bearer: self.token.as_deref(),
                size: file.size,
                checksum: file.checksum,
                pinned: pin.is_some(),
                identity: file.checksum.map_or_else(|| listing.revision.clone(), |checksum| checksum.hex()),
            };
            let refused = |response: &Response<Body>| self.refusal(request, &remote.url, response);
            transfer(&self.client, &remote, &path, &refused, &mut offset_by(progress, done, total))?;
            done += fs::metadata(&path)?.len();
        }
        keep_only(destination, &listing)?;
        Ok(Resolved { revision: listing.revision })
    }

    /// Asks what the revision is and which of its files are wanted.
    fn list(&self, request: &HubRequest, progress: &mut Progress<'_>) -> Result<Listing, FetchError> {
        let url = format!(
            "{}/api/{}/{}/revision/{}?blobs=true",
            self.endpoint,
            request.repo_type,
            encoded_path(&request.repo),
            encoded(&request.revision)
        );
        let mut retries = self.client.retries();
        let text = loop {
            match self.ask_text(request, &url) {
                Ok(text) => break text,
                Err(failed) => retries.wait(failed, &mut || progress(0, None))?,
            }
        };
        let answer: RepositoryInfo = serde_json::from_str(&text).map_err(|error| FetchError::Answer {
            url: url.clone(),
            message: format!("the answer is not a repository's description: {error}"),
        })?;
        let mut files = Vec::new();
        for sibling in answer.siblings {
            if wanted_file(request.artifact, &sibling.rfilename) {
                let hex = sibling.lfs.as_ref().and_then(|lfs| lfs.sha256.as_ref().or(lfs.oid.as_ref()));
                let checksum = hex.map(|hex| Checksum::sha256(hex)).transpose()?;
                let size = sibling.size.or(sibling.lfs.and_then(|lfs| lfs.size));
                files.push(ListedFile { path: sibling.rfilename, size, checksum });
            }
        }
        if !suffices(request.artifact, files.iter().map(|file| file.path.as_str())) {
            return Err(FetchError::NothingWanted {
                repo: request.repo.clone(),
                artifact: request.artifact,
                what: description(request.artifact),
            });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Listing { revision: answer.sha, files })
    }

    fn ask_text(&self, request: &HubRequest, url: &str) -> Result<String, Failed> {
        let mut response = self.client.ask(url, self.token.as_deref(), 0)?;
        if response.status().as_u16() != 200 {
            return Err(Failed::for_good(self.refusal(request, url, &response)));
        }
        response.body_mut().with_config().limit(LONGEST_LISTING).read_to_string().map_err(|error| {
            Failed::passing(FetchError::Network { url: url.to_owned(), cause: error.into_io() })
        })
    }

    fn file_url(&self, request: &HubRequest, revision: &str, path: &str) -> String {
        let prefix = if request.repo_type == "datasets" { "datasets/" } else { "" };
        format!(
            "{}/{prefix}{}/resolve/{}/{}",
            self.endpoint,
            encoded_path(&request.repo),
            encoded(revision),
            encoded_path(path)
        )
    }

    /// What an answer other than success means. The Hub answers 401 for repositories that do not exist too, and
    /// says what it means in a header.
    fn refusal(&self, request: &HubRequest, url: &str, response: &Response<Body>) -> FetchError {
        let with_token = self.token.is_some();
        let repo = request.repo.clone();
        let status = response.status().as_u16();
        match (status, header_text(response, "x-error-code")) {
            (_, Some("GatedRepo")) => {
                let prefix = if request.repo_type == "datasets" { "datasets/" } else { "" };
                let page = format!("{}/{prefix}{repo}", self.endpoint);
                FetchError::Gated { repo, page, with_token }
            }
            (_, Some("RevisionNotFound")) => {
                FetchError::NoRevision { repo, revision: request.revision.clone() }
            }
            (404, Some("EntryNotFound")) => FetchError::NotFound { url: url.to_owned(), status },
            (401 | 404, _) => FetchError::NoRepository { repo, with_token },
            (403, _) => FetchError::Denied { url: url.to_owned(), status, with_token },
            _ => http::refusal(url, response),
        }
    }
}

/// [`Hub::fetch`] with the Hub of the environment.
///
/// # Errors
/// See [`FetchError`].
pub fn fetch_hub(
    request: &HubRequest,
    destination: &Path,
    pin: Option<&Pin>,
    progress: &mut Progress<'_>,
) -> Result<Resolved, FetchError> {
    Hub::from_environment().fetch(request, destination, pin, progress)
}

/// The Hub's answer about a revision, as far as it is used.
#[derive(Deserialize)]
struct RepositoryInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    /// Of files in large file storage.
    #[serde(default)]
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    #[serde(default)]
    sha256: Option<String>,
    /// The same under its older name.
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    size: Option<u64>,
}

/// What there is to fetch.
struct Listing {
    revision: String,
    files: Vec<ListedFile>,
}

struct ListedFile {
    path: String,
    size: Option<u64>,
    checksum: Option<Checksum>,
}

impl Listing {
    fn of_pin(pin: &Pin, asked: &str) -> Self {
        let files = pin.tree().files.iter().map(|(path, entry)| ListedFile {
            path: path.clone(),
            size: Some(entry.size),
            checksum: Some(Checksum::Blake3(entry.digest)),
        });
        let files = files.collect();
        Self { revision: pin.revision.clone().unwrap_or_else(|| asked.to_owned()), files }
    }
}

/// `path` as a path below a folder, if it stays there.
fn checked(path: &str) -> Result<PathBuf, FetchError> {
    let leaves =
        |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\\', '\0', '\n']);
    if path.split('/').any(leaves) {
        return Err(FetchError::BadPath { path: path.to_owned() });
    }
    Ok(path.split('/').collect())
}

/// Removes files of earlier attempts that do not belong to `listing`.
fn keep_only(destination: &Path, listing: &Listing) -> Result<(), FetchError> {
    let wanted: BTreeSet<PathBuf> = listing.files.iter().map(|file| destination.join(&file.path)).collect();
    let mut folders = vec![destination.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if !wanted.contains(&path) {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// `text` as one segment of an address.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// `path` as several segments of an address.
fn encoded_path(path: &str) -> String {
    path.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

/// An environment variable that is set and not empty.
fn text_variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Where the Hub's own tools keep the token.
fn token_file() -> Option<PathBuf> {
    if let Some(path) = text_variable("HF_TOKEN_PATH") {
        return Some(path.into());
    }
    if let Some(home) = text_variable("HF_HOME") {
        return Some(PathBuf::from(home).join("token"));
    }
    let cache = text_variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| text_variable("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(cache.join("huggingface/token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_and_paths_are_encoded() {
        assert_eq!(encoded("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encoded_path("data/my file+1.jsonl"), "data/my%20file%2B1.jsonl");
    }

    #[test]
    fn listed_paths_stay_below_the_folder() {
        for path in ["../x", "/etc/passwd", "a//b", "a/./b", "", "a\\..\\b"] {
            assert!(checked(path).is_err(), "{path}");
        }
        assert!(checked("data/train.jsonl").is_ok());
    }
}
