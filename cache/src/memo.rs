//! What the records that a pipeline asks for said when they were last read.
//!
//! A run with nothing to do asks about thousands of records. Opening and checking each costs several times as
//! much as seeing that its file has not changed since it was last read, so what it said then is kept in
//! `memos/NAME`, by the rule of the stat cache: size, both times, device and inode of the record's file are
//! what they were, and it was last changed well before it was read. A record that was removed, replaced or
//! edited by hand is read again; blobs are looked for each time. Losing the memo costs time and nothing else.
//!
//! ```text
//! qpipe-memo 1\n, blake3 of the rest (32 bytes), then for each record, numbers little-endian:
//! length of what follows (u32), key (32 bytes), size, mtime, ctime, device, inode (8 bytes each),
//! location (u8), then for each file: length of its path (u32), path, digest (32 bytes), size (u64)
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;

use crate::Digest;
use crate::identity::{Identity, open_folder};
use crate::layout::named;
use crate::record::{Location, Output};
use crate::replace::temporary_in;
use crate::tree::{Entry, Tree};

const HEADER: &[u8] = b"qpipe-memo 1\n";
/// So many records are read again and again before the file is written for them.
const WORTH_WRITING: usize = 16;

/// The memo of one pipeline. Shared by threads; of several processes the last one's stays.
#[derive(Debug)]
pub(crate) struct Memo {
    file: PathBuf,
    /// Of all records.
    folder: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Entries one after the other: those of the file, then new ones.
    bytes: Vec<u8>,
    places: HashMap<Digest, Place>,
    new: usize,
}

/// Where an entry is, without its length.
#[derive(Debug)]
struct Place {
    range: Range<usize>,
    /// Whether this process asked for it.
    asked: bool,
}

impl Memo {
    /// Reads `file`, about records in `folder`; a missing or damaged one is empty.
    ///
    /// # Errors
    /// When there is no such folder.
    pub(crate) fn load(file: PathBuf, folder: &Path) -> io::Result<Self> {
        let state = std::fs::read(&file).ok().and_then(State::read).unwrap_or_default();
        Ok(Self { file, folder: open_folder(folder)?, state: Mutex::new(state) })
    }

    /// What the file `name` looks like now, if it is there.
    pub(crate) fn identity(&self, name: &Path) -> Option<Identity> {
        Identity::at(&self.folder, name).ok()
    }

    /// What the record of `key` said, if its file still is what it was then.
    pub(crate) fn recall(&self, key: &Digest, identity: &Identity) -> Option<Output> {
        let state = &mut *self.lock();
        let place = state.places.get_mut(key)?;
        let (then, output) = decode(&state.bytes[place.range.clone()])?;
        if then != *identity {
            return None;
        }
        place.asked = true;
        Some(output)
    }

    /// Notes what a record said whose file looked like `identity` when it was read. The caller knows that no
    /// write since can have left that as it is.
    pub(crate) fn note(&self, identity: &Identity, output: &Output) {
        let state = &mut *self.lock();
        let start = state.bytes.len();
        encode(identity, output, &mut state.bytes);
        let range = start + size_of::<u32>()..state.bytes.len();
        state.places.insert(output.key, Place { range, asked: true });
        state.new += 1;
    }

    /// Writes what is new, if it is worth it. Entries that this process did not ask for stay as long as they
    /// are no more than those that it did.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(&self) -> io::Result<()> {
        let state = &mut *self.lock();
        if state.new < WORTH_WRITING {
            return Ok(());
        }
        state.new = 0;
        let asked = state.places.values().filter(|place| place.asked).count();
        let keep_all = state.places.len() <= 2 * asked;
        let mut entries = Vec::with_capacity(state.bytes.len());
        for place in state.places.values().filter(|place| keep_all || place.asked) {
            // The length stands before the entry.
            entries.extend_from_slice(&state.bytes[place.range.start - size_of::<u32>()..place.range.end]);
        }
        let folder = self.file.parent().expect("a memo lies in the folder of memos");
        fs::create_dir_all(folder)?;
        let mut file = temporary_in(folder)?;
        // Not synced: a file that a power cut tore does not pass its digest.
        for part in [HEADER, &Digest::of(&entries).0, &entries] {
            file.write_all(part).map_err(|error| named(error, "write", &self.file))?;
        }
        file.persist(&self.file).map_err(|error| named(error.error, "rename to", &self.file))?;
        tracing::debug!(entries = state.places.len(), "memo written");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read(mut bytes: Vec<u8>) -> Option<Self> {
        let mut rest = bytes.strip_prefix(HEADER)?;
        let digest: [u8; 32] = take(&mut rest)?;
        if Digest::of(rest).0 != digest {
            return None;
        }
        let start = bytes.len() - rest.len();
        bytes.drain(..start);
        let mut places = HashMap::with_capacity(bytes.len() / 200);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(take(&mut rest)?) as usize;
            let start = bytes.len() - rest.len();
            rest = rest.get(length..)?;
            let key = Digest(*bytes.get(start..start + length)?.first_chunk()?);
            places.insert(key, Place { range: start..start + length, asked: false });
        }
        Some(Self { bytes, places, new: 0 })
    }
}

fn encode(identity: &Identity, output: &Output, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; size_of::<u32>()]);
    bytes.extend_from_slice(&output.key.0);
    let Identity { size, modified, changed, device, inode } = *identity;
    for number in [size, modified.cast_unsigned(), changed.cast_unsigned(), device, inode] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.push(match output.location {
        Location::Stored => 0,
        Location::External => 1,
    });
    for (path, entry) in &output.tree.files {
        bytes.extend_from_slice(&length_of(path.as_bytes()));
        bytes.extend_from_slice(path.as_bytes());
        bytes.extend_from_slice(&entry.digest.0);
        bytes.extend_from_slice(&entry.size.to_le_bytes());
    }
    let length = length_of(&bytes[start + size_of::<u32>()..]);
    bytes[start..start + size_of::<u32>()].copy_from_slice(&length);
}

fn length_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("a listing is shorter than 4 GiB").to_le_bytes()
}

/// Reads an entry without its length; `None` for bytes that [`encode`] did not write.
fn decode(mut bytes: &[u8]) -> Option<(Identity, Output)> {
    let bytes = &mut bytes;
    let key = Digest(take(bytes)?);
    let identity = Identity {
        size: u64::from_le_bytes(take(bytes)?),
        modified: i64::from_le_bytes(take(bytes)?),
        changed: i64::from_le_bytes(take(bytes)?),
        device: u64::from_le_bytes(take(bytes)?),
        inode: u64::from_le_bytes(take(bytes)?),
    };
    let location = match take(bytes)? {
        [0] => Location::Stored,
        [1] => Location::External,
        _ => return None,
    };
    let mut files = BTreeMap::new();
    while !bytes.is_empty() {
        let length = u32::from_le_bytes(take(bytes)?) as usize;
        let (path, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        let entry = Entry { digest: Digest(take(bytes)?), size: u64::from_le_bytes(take(bytes)?) };
        files.insert(str::from_utf8(path).ok()?.to_owned(), entry);
    }
    Some((identity, Output { key, tree: Tree { files }, location }))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn identity(inode: u64) -> Identity {
        Identity { size: 700, modified: -5, changed: i64::MAX, device: 65_025, inode }
    }

    fn output(number: u64, files: &[&str]) -> Output {
        let entry = Entry { digest: Digest::of(b"content"), size: number };
        Output {
            key: Digest::of(&number.to_le_bytes()),
            tree: Tree { files: files.iter().map(|path| ((*path).to_owned(), entry)).collect() },
            location: if number.is_multiple_of(2) { Location::Stored } else { Location::External },
        }
    }

    fn filled(file: PathBuf, numbers: Range<u64>) -> Memo {
        let memo = Memo::load(file, Path::new("/")).unwrap();
        numbers.for_each(|number| memo.note(&identity(number), &output(number, &["a", "sub/é"])));
        memo.save().unwrap();
        memo
    }

    #[test]
    fn entries_round_trip_and_hold_for_the_same_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memos/study");
        filled(file.clone(), 0..40);
        let memo = Memo::load(file, Path::new("/")).unwrap();
        for number in 0..40 {
            let key = output(number, &[]).key;
            assert_eq!(memo.recall(&key, &identity(number)), Some(output(number, &["a", "sub/é"])));
            assert_eq!(memo.recall(&key, &identity(number + 1)), None, "another file");
        }
        assert_eq!(memo.recall(&Digest::of(b"unknown"), &identity(0)), None);
        memo.note(&identity(99), &output(3, &[""]));
        assert_eq!(memo.recall(&output(3, &[]).key, &identity(99)), Some(output(3, &[""])), "replaced");
    }

    #[test]
    fn a_damaged_file_is_an_empty_memo() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("study");
        filled(file.clone(), 0..20);
        let whole = fs::read(&file).unwrap();
        for length in (0..whole.len()).step_by(97) {
            assert!(State::read(whole[..length].to_vec()).is_none(), "torn at {length}");
            let mut altered = whole.clone();
            altered[length] ^= 1;
            assert!(State::read(altered).is_none(), "byte {length} altered");
        }
        assert_eq!(State::read(whole).unwrap().places.len(), 20);
    }

    #[test]
    fn a_few_new_records_are_not_written_and_old_ones_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("study");
        filled(file.clone(), 0..(WORTH_WRITING as u64 - 1));
        assert!(!file.exists());
        let count = |file: &PathBuf| State::read(fs::read(file).unwrap()).unwrap().places.len();
        filled(file.clone(), 0..100);
        filled(file.clone(), 100..200);
        assert_eq!(count(&file), 200, "as many old ones as new ones stay");
        filled(file.clone(), 200..220);
        assert_eq!(count(&file), 20);
    }
}
