//! Compiled code on disk: a file for each key of [`Source::key`], so that a machine compiles each source once.
//!
//! A file is the BLAKE3 hash of the code and then the code: what was cut or damaged is compiled anew. Files are written
//! beside their place and renamed, so that processes may share the folder.

use std::env;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CODE_FOLDER, CudaError, Source};

/// Bytes of the hash.
const HASH: usize = 32;

/// The folder of compiled code, if there is one: that of [`CODE_FOLDER`], else the user's cache.
pub(super) fn folder() -> Option<PathBuf> {
    let named = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named(CODE_FOLDER).or_else(|| {
        let cache = named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")));
        cache.map(|cache| cache.join("qpipe/cuda"))
    })
}

/// Code of `source` for `architecture`, from `folder` if it is there, else compiled and kept there. A folder that cannot
/// be written costs only time, so that it fails nothing.
pub(super) fn code(source: &Source, architecture: &str, folder: Option<&Path>) -> Result<Vec<u8>, CudaError> {
    let Some(folder) = folder else { return source.compile(architecture) };
    let path = folder.join(format!("{}.cubin", source.key(architecture)?.to_hex()));
    if let Some(code) = read(&path) {
        return Ok(code);
    }
    let code = source.compile(architecture)?;
    let _ = write(folder, &path, &code);
    Ok(code)
}

/// The code in a file that is whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs_err::read(path).ok()?;
    let (hash, code) = bytes.split_at_checked(HASH)?;
    if blake3::hash(code).as_bytes() != hash {
        return None;
    }
    Some(bytes.split_off(HASH))
}

fn write(folder: &Path, path: &Path, code: &[u8]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    fs_err::create_dir_all(folder)?;
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let partial = folder.join(format!(".{}-{number}.partial", process::id()));
    let bytes = [blake3::hash(code).as_bytes().as_slice(), code].concat();
    let written = fs_err::write(&partial, bytes).and_then(|()| fs_err::rename(&partial, path));
    if written.is_err() {
        let _ = fs_err::remove_file(&partial);
    }
    written
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("made/when/needed");
        let path = inner.join("a.cubin");
        assert_eq!(read(&path), None);
        write(&inner, &path, b"code").unwrap();
        assert_eq!(read(&path).unwrap(), b"code");
        assert_eq!(fs_err::read_dir(&inner).unwrap().count(), 1);
        let whole = fs_err::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..10], b""] {
            fs_err::write(&path, damaged).unwrap();
            assert_eq!(read(&path), None);
        }
    }

    #[test]
    fn a_damaged_file_is_compiled_anew_and_a_whole_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let text = "extern \"C\" __global__ void store(int* x) { *x = 7; }";
        let source = Source::new("store", text, &["store"]);
        let code = || super::code(&source, "sm_80", Some(folder.path())).unwrap();
        let compiled = code();
        assert_eq!(&compiled[1..4], b"ELF");
        let path = folder.path().join(format!("{}.cubin", source.key("sm_80").unwrap().to_hex()));
        fs_err::write(&path, b"damaged").unwrap();
        assert_eq!(code(), compiled);
        assert_eq!(read(&path).unwrap(), compiled);
        // Other bytes show that the file is what is used.
        write(folder.path(), &path, b"kept").unwrap();
        assert_eq!(code(), b"kept");
        assert_ne!(source.key("sm_80").unwrap(), source.key("sm_90a").unwrap());
    }
}
