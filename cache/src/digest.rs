//! Content digests: blake3, 256 bits, never cut where they are compared.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use fs_err as fs;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Files above this size (bytes) are hashed through a memory map on all cores.
const PARALLEL_ABOVE: u64 = 1 << 20;

/// A blake3 digest. Shown and serialized as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a file's content. Large files are mapped and hashed in parallel.
    ///
    /// # Errors
    /// When the file cannot be opened or read; the error names it.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        let mut hasher = blake3::Hasher::new();
        if size > PARALLEL_ABOVE {
            hasher.update_mmap_rayon(path).map_err(|error| {
                io::Error::new(error.kind(), format!("failed to map file `{}`: {error}", path.display()))
            })?;
        } else {
            hasher.update_reader(file)?;
        }
        Ok(Self(*hasher.finalize().as_bytes()))
    }

    /// The first 12 digits, for people. Never an identity.
    pub fn short(&self) -> String {
        let mut hex = self.to_string();
        hex.truncate(12);
        hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A text that is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest of 64 lower-case hexadecimal digits")]
pub struct ParseDigestError {
    text: String,
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text.as_bytes()).map(Self).ok_or_else(|| ParseDigestError { text: text.to_owned() })
    }
}

/// Records and the stat cache hold tens of thousands of digests that every run reads, hence the table.
fn parse_hex(digits: &[u8]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = digits.try_into().ok()?;
    let mut bytes = [0; 32];
    let mut all = 0;
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let (high, low) = (DIGIT_VALUES[usize::from(pair[0])], DIGIT_VALUES[usize::from(pair[1])]);
        all |= high | low;
        *byte = high << 4 | low;
    }
    (all < NO_DIGIT).then_some(bytes)
}

const NO_DIGIT: u8 = 16;

/// The value of each byte as a lower-case hexadecimal digit.
static DIGIT_VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl de::Visitor<'_> for Hex {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a digest of 64 hexadecimal digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_round_trip() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert_eq!(digest.short(), "6437b3ac3846");
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn other_texts_are_refused() {
        let upper = Digest::of(b"abc").to_string().to_uppercase();
        for text in
            ["", "12", upper.as_str(), "zz37b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"]
        {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_hashes_like_its_bytes_at_every_size() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, 5000, (1 << 20) + 1, 3 << 20] {
            let bytes: Vec<u8> = (0..size).map(|i: usize| (i * 31 % 251) as u8).collect();
            let path = folder.path().join("file");
            fs::write(&path, &bytes).unwrap();
            assert_eq!(Digest::of_file(&path).unwrap(), Digest::of(&bytes), "{size} bytes");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Digest::of_file(Path::new("/nowhere/file")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/file"), "{error}");
    }
}
