//! The stat cache's file: one line a file that was hashed, appended, never changed in place.
//!
//! ```text
//! CHECK DIGEST SIZE MTIME CTIME DEVICE INODE HASHED PATH
//! ```
//!
//! `CHECK` is the first 8 digits of the blake3 digest of the rest of the line; times are nanoseconds since
//! 1970. Lines that do not pass (torn by a crash or a full disk) are skipped, later lines win. A first line
//! `qpipe-stat 1 BYTES` says how large the file was after it was last rewritten; when it has doubled, it is
//! rewritten without superseded lines and vanished files. Several processes append at once: each append is
//! one write with `O_APPEND`. An entry lost to a rewrite by another process costs one hashing.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use fs_err as fs;

use crate::Digest;
use crate::identity::Identity;
use crate::layout::replace_file;

const HEADER: &str = "qpipe-stat 1 ";
const CHECK_DIGITS: usize = 8;
/// Below this size (bytes) the file is not worth rewriting.
const SMALL: u64 = 1 << 20;

/// A file's digest and what the file looked like when it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) digest: Digest,
    pub(crate) identity: Identity,
    /// When hashing began, nanoseconds since 1970.
    pub(crate) at: i64,
}

/// Entries by absolute path.
pub(crate) type Entries = HashMap<String, Hashed>;

/// Reads the whole log; a missing or unreadable one is empty.
pub(crate) fn load(path: &Path) -> Entries {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(%error, "no stat cache");
            }
            return Entries::new();
        }
    };
    let mut entries = Entries::with_capacity(bytes.len() / 200);
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some((path, hashed)) = parse(line) {
            entries.insert(path.to_owned(), hashed);
        }
    }
    entries
}

/// Appends lines for `entries`; rewrites the log first if it has doubled since the last rewrite.
///
/// # Errors
/// When the log cannot be written. The caller's digests are right all the same.
pub(crate) fn append(path: &Path, entries: &[(&str, &Hashed)]) -> io::Result<()> {
    let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if size > SMALL && size / 2 > size_after_rewrite(path)? {
        rewrite(path)?;
    }
    let mut text = String::with_capacity(entries.len() * 256);
    if size == 0 {
        text.push_str(HEADER);
        text.push_str("0\n");
    }
    for (path, hashed) in entries {
        push_line(&mut text, path, hashed);
    }
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// What the first line says; 0, and so a rewrite, where it says nothing.
fn size_after_rewrite(path: &Path) -> io::Result<u64> {
    let mut start = [0; 64];
    let length = fs::File::open(path)?.read(&mut start)?;
    let line = start[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let size = str::from_utf8(line).ok().and_then(|line| line.strip_prefix(HEADER)?.parse().ok());
    Ok(size.unwrap_or(0))
}

fn rewrite(path: &Path) -> io::Result<()> {
    let mut entries = load(path);
    entries.retain(|path, hashed| {
        std::fs::metadata(path).is_ok_and(|metadata| Identity::of(&metadata) == hashed.identity)
    });
    let mut lines = String::with_capacity(entries.len() * 256);
    for (path, hashed) in &entries {
        push_line(&mut lines, path, hashed);
    }
    tracing::debug!(entries = entries.len(), "stat cache rewritten");
    replace_file(path, format!("{HEADER}{}\n{lines}", lines.len()).as_bytes())
}

fn push_line(text: &mut String, path: &str, hashed: &Hashed) {
    if path.contains('\n') {
        return;
    }
    let Identity { size, modified, changed, device, inode } = hashed.identity;
    let start = text.len();
    write!(text, "{} {size} {modified} {changed} {device} {inode} {} {path}", hashed.digest, hashed.at)
        .expect("writing to a String does not fail");
    let check = format!("{:08x} ", check_of(&text[start..]));
    text.insert_str(start, &check);
    text.push('\n');
}

fn check_of(rest: &str) -> u32 {
    let [a, b, c, d, ..] = Digest::of(rest.as_bytes()).0;
    u32::from_be_bytes([a, b, c, d])
}

fn parse(line: &[u8]) -> Option<(&str, Hashed)> {
    let line = str::from_utf8(line).ok()?;
    let (check, rest) = line.split_at_checked(CHECK_DIGITS + 1)?;
    if u32::from_str_radix(check.strip_suffix(' ')?, 16).ok()? != check_of(rest) {
        return None;
    }
    let mut fields = rest.splitn(8, ' ');
    let digest = fields.next()?.parse().ok()?;
    let identity = Identity {
        size: fields.next()?.parse().ok()?,
        modified: fields.next()?.parse().ok()?,
        changed: fields.next()?.parse().ok()?,
        device: fields.next()?.parse().ok()?,
        inode: fields.next()?.parse().ok()?,
    };
    let at = fields.next()?.parse().ok()?;
    Some((fields.next()?, Hashed { digest, identity, at }))
}
