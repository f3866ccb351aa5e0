//! Expected digests of downloaded files.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use qpipe_cache::Digest;
use sha2::{Digest as _, Sha256};

use super::FetchError;

/// A digest and how it is computed. Written `sha256:HEX` or `blake3:HEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// What the Hub tells of large files.
    Sha256([u8; 32]),
    /// What the lock file tells.
    Blake3(Digest),
}

impl Checksum {
    /// A SHA-256 from its 64 hexadecimal digits.
    pub(super) fn sha256(hex: &str) -> Result<Self, FetchError> {
        Ok(Self::Sha256(bytes(hex).ok_or_else(|| FetchError::BadDigest { text: hex.to_owned() })?))
    }

    /// The digits.
    pub(super) fn hex(&self) -> String {
        let bytes = match self {
            Self::Sha256(bytes) => bytes,
            Self::Blake3(digest) => &digest.0,
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Starts computing a digest of the same kind.
    pub(super) fn hasher(&self) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Blake3(_) => Hasher::Blake3(Box::default()),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Sha256(_) => "sha256",
            Self::Blake3(_) => "blake3",
        };
        write!(f, "{name}:{}", self.hex())
    }
}

impl FromStr for Checksum {
    type Err = FetchError;

    fn from_str(text: &str) -> Result<Self, FetchError> {
        let parsed = match text.split_once(':') {
            Some(("sha256", hex)) => bytes(hex).map(Self::Sha256),
            Some(("blake3", hex)) => bytes(hex).map(|bytes| Self::Blake3(Digest(bytes))),
            _ => None,
        };
        parsed.ok_or_else(|| FetchError::BadDigest { text: text.to_owned() })
    }
}

/// 32 bytes from 64 hexadecimal digits of either case.
fn bytes(hex: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(hex.to_ascii_lowercase()).ok().map(|hash| *hash.as_bytes())
}

/// A digest in the making.
pub(super) enum Hasher {
    Sha256(Sha256),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => _ = hasher.update(bytes),
        }
    }

    /// Adds the whole content of the file at `path`.
    pub(super) fn update_file(&mut self, path: &Path) -> io::Result<()> {
        let mut file = fs_err::File::open(path)?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                length => self.update(&buffer[..length]),
            }
        }
    }

    pub(super) fn finish(self) -> Checksum {
        match self {
            Self::Sha256(hasher) => Checksum::Sha256(hasher.finalize().into()),
            Self::Blake3(hasher) => Checksum::Blake3(Digest(*hasher.finalize().as_bytes())),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read_computed_and_shown() {
        // Digests of "abc": FIPS 180-4's example, and blake3's as in the cache's test.
        for text in [
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        ] {
            let checksum: Checksum = text.parse().unwrap();
            assert_eq!(checksum.to_string(), text);
            let mut hasher = checksum.hasher();
            hasher.update(b"a");
            hasher.update(b"bc");
            assert_eq!(hasher.finish(), checksum);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "md5:00", "sha256:12", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
        {
            assert!(matches!(text.parse::<Checksum>(), Err(FetchError::BadDigest { .. })), "{text}");
        }
    }
}
