//! One file from a web address, its digest given.

use std::path::Path;

use ureq::Body;
use ureq::http::Response;

use super::client::Client;
use super::transfer::{RemoteFile, transfer};
use super::{Checksum, FetchError, Progress};

/// Brings the file at `url` to `destination`. `digest` is `sha256:HEX` or `blake3:HEX`. Beside an unfinished
/// file stands `NAME.….partial`, from which the next attempt goes on.
///
/// # Errors
/// See [`FetchError`]; a file with another digest never gets its name.
pub fn fetch_http(
    url: &str,
    digest: &str,
    destination: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), FetchError> {
    fetch_http_with(&Client::default(), url, digest, destination, progress)
}

/// The same through a client of the caller's.
///
/// # Errors
/// See [`fetch_http`].
pub fn fetch_http_with(
    client: &Client,
    url: &str,
    digest: &str,
    destination: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), FetchError> {
    let checksum: Checksum = digest.parse()?;
    if let Some(folder) = destination.parent() {
        fs_err::create_dir_all(folder)?;
    }
    let file = RemoteFile {
        url: url.to_owned(),
        bearer: None,
        size: None,
        checksum: Some(checksum),
        pinned: false,
        identity: checksum.hex(),
    };
    transfer(client, &file, destination, &|response| refusal(url, response), progress)
}

/// What an answer other than success means.
pub(super) fn refusal(url: &str, response: &Response<Body>) -> FetchError {
    let (url, status) = (url.to_owned(), response.status().as_u16());
    match status {
        401 | 403 => FetchError::Denied { url, status, with_token: false },
        404 | 410 => FetchError::NotFound { url, status },
        _ => FetchError::Status { url, status },
    }
}
