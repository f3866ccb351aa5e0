//! One file from a server to its place: resumed where it broke off, verified, then renamed.

use std::ffi::OsString;
use std::io::{self, Read, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fs_err as fs;
use ureq::Body;
use ureq::http::Response;

use super::checksum::Checksum;
use super::client::{Client, Failed, header_text, report};
use super::{FetchError, Progress};

/// Bytes read before the next report of progress.
const CHUNK: usize = 1 << 18;

/// A file on a server.
pub(super) struct RemoteFile<'a> {
    /// Where.
    pub(super) url: String,
    /// The token to show.
    pub(super) bearer: Option<&'a str>,
    /// Bytes, if known.
    pub(super) size: Option<u64>,
    /// The digest, if known.
    pub(super) checksum: Option<Checksum>,
    /// Whether the lock file says the digest.
    pub(super) pinned: bool,
    /// Distinguishes this content from other content under the same name: partial files carry it.
    pub(super) identity: String,
}

/// Brings `file` to `destination`, whose folder exists. `refused` says what an answer other than success means.
/// A file that is there with the expected digest is left as it is.
pub(super) fn transfer(
    client: &Client,
    file: &RemoteFile<'_>,
    destination: &Path,
    refused: &dyn Fn(&Response<Body>) -> FetchError,
    progress: &mut Progress<'_>,
) -> Result<(), FetchError> {
    if is_there(file, destination)? {
        let size = fs::metadata(destination)?.len();
        return report(progress, size, Some(size));
    }
    let partial = partial_path(destination, &file.identity);
    let mut retries = client.retries();
    let mut may_be_stale = true;
    loop {
        let before = length(&partial)?;
        match attempt(client, file, &partial, refused, progress) {
            Ok(()) => {}
            Err(failed) => {
                let after = length(&partial)?;
                if after > before {
                    retries.progressed();
                }
                retries.wait(failed, &mut || progress(after, file.size))?;
                continue;
            }
        }
        match verify(file, &partial) {
            Ok(()) => break,
            Err(error) => {
                fs::remove_file(&partial)?;
                // What an earlier process left may be broken; what came in one piece is what is served.
                if before == 0 || !may_be_stale {
                    return Err(error);
                }
                may_be_stale = false;
            }
        }
    }
    fs::rename(&partial, destination)?;
    Ok(())
}

/// Whether `destination` already holds the file. Without a digest nobody can tell.
fn is_there(file: &RemoteFile<'_>, destination: &Path) -> Result<bool, FetchError> {
    let Some(expected) = file.checksum else { return Ok(false) };
    if !destination.is_file() || file.size.is_some_and(|size| length(destination).ok() != Some(size)) {
        return Ok(false);
    }
    Ok(digest_of(&expected, destination)? == expected)
}

fn digest_of(kind: &Checksum, path: &Path) -> io::Result<Checksum> {
    let mut hasher = kind.hasher();
    hasher.update_file(path)?;
    Ok(hasher.finish())
}

fn verify(file: &RemoteFile<'_>, partial: &Path) -> Result<(), FetchError> {
    let Some(expected) = file.checksum else { return Ok(()) };
    let actual = digest_of(&expected, partial)?;
    if actual == expected {
        return Ok(());
    }
    Err(FetchError::WrongDigest {
        url: file.url.clone(),
        expected: expected.to_string(),
        actual: actual.to_string(),
        pinned: file.pinned,
    })
}

/// `NAME.IDENTITY.partial` beside `destination`.
fn partial_path(destination: &Path, identity: &str) -> PathBuf {
    let mut name = destination.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".{}.partial", identity.get(..12).unwrap_or(identity)));
    destination.with_file_name(name)
}

/// Bytes of the file at `path`, 0 if there is none.
fn length(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Asks for what is missing and appends it to `partial`. `Ok` when the file is complete.
fn attempt(
    client: &Client,
    file: &RemoteFile<'_>,
    partial: &Path,
    refused: &dyn Fn(&Response<Body>) -> FetchError,
    progress: &mut Progress<'_>,
) -> Result<(), Failed> {
    let local = |error: io::Error| Failed::for_good(error.into());
    let mut offset = length(partial).map_err(local)?;
    if file.size == Some(offset) && offset > 0 {
        return report(progress, offset, file.size).map_err(Failed::for_good);
    }
    if file.size.is_some_and(|size| offset > size) {
        fs::remove_file(partial).map_err(local)?;
        offset = 0;
    }
    let mut response = client.ask(&file.url, file.bearer, offset)?;
    let starts_at = match response.status().as_u16() {
        200 => 0,
        206 => range_start(&response),
        416 => {
            // What is there is no beginning of what is served.
            fs::remove_file(partial).map_err(local)?;
            let error = FetchError::Status { url: file.url.clone(), status: 416 };
            return Err(Failed::passing(error));
        }
        _ => return Err(Failed::for_good(refused(&response))),
    };
    if starts_at != offset && starts_at != 0 {
        let message = format!("asked for bytes from {offset} on, the server sends them from {starts_at} on");
        return Err(Failed::for_good(FetchError::Answer { url: file.url.clone(), message }));
    }
    let expected = file.size.or_else(|| response.body().content_length().map(|rest| starts_at + rest));
    let mut output = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .append(starts_at > 0)
        .truncate(starts_at == 0)
        .open(partial)
        .map_err(local)?;
    let mut done = starts_at;
    let mut reader = response.body_mut().as_reader();
    let mut buffer = vec![0; CHUNK];
    loop {
        report(progress, done, expected).map_err(Failed::for_good)?;
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(Failed::passing(FetchError::Network { url: file.url.clone(), cause })),
        };
        output.write_all(&buffer[..read]).map_err(local)?;
        done += read as u64;
        if let Some(size) = file.size
            && done > size
        {
            return Err(Failed::for_good(FetchError::TooLong { url: file.url.clone(), expected: size }));
        }
    }
    output.flush().map_err(local)?;
    match expected {
        Some(size) if done < size => {
            let cause = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the connection ended after {done} of {size} bytes"),
            );
            Err(Failed::passing(FetchError::Network { url: file.url.clone(), cause }))
        }
        _ => Ok(()),
    }
}

/// `START` of `Content-Range: bytes START-END/TOTAL`; 0 where it is not said.
fn range_start(response: &Response<Body>) -> u64 {
    header_text(response, "content-range")
        .and_then(|text| text.trim().strip_prefix("bytes"))
        .and_then(|range| range.trim_start().split('-').next())
        .and_then(|start| start.trim().parse().ok())
        .unwrap_or(0)
}

/// A progress that counts on from `before` bytes and knows the `total`.
pub(super) fn offset_by<'a>(
    progress: &'a mut Progress<'_>,
    before: u64,
    total: Option<u64>,
) -> impl FnMut(u64, Option<u64>) -> ControlFlow<()> + 'a {
    move |done, own_total| progress(before + done, total.or(own_total.map(|own| before + own)))
}
