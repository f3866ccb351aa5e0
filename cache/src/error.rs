//! What can go wrong with the store, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::Digest;

/// A failure of the store or of reading an input. I/O errors name their path.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space or no quota left. What was committed before is intact.
    #[error("the disk is full: {0}")]
    Full(io::Error),

    /// The store (or a results folder) lies where this user cannot write.
    #[error("no permission to write: {0}")]
    NotWritable(io::Error),

    /// Any other I/O error.
    #[error("{0}")]
    Io(io::Error),

    /// The store was written by a newer qpipe.
    #[error("the store at {} has format {found}, this qpipe knows formats up to {supported}", root.display())]
    NewerFormat {
        /// The store.
        root: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },

    /// The file that holds the format version says something else.
    #[error("{} does not hold a store's format version", path.display())]
    UnreadableFormat {
        /// The file.
        path: PathBuf,
    },

    /// The folder named as the store holds other things.
    #[error("{} is not a qpipe store: it holds `{entry}`", root.display())]
    NotAStore {
        /// The folder.
        root: PathBuf,
        /// One of the things in it.
        entry: String,
    },

    /// The store is a file, or lies below one.
    #[error("{} cannot be a store: it is a file, or lies below one", root.display())]
    NotAFolder {
        /// Where a folder is due.
        root: PathBuf,
    },

    /// A node finished without writing anything.
    #[error("nothing was written to {}", path.display())]
    EmptyOutput {
        /// The node's output folder.
        path: PathBuf,
    },

    /// A file name that the listing of an artifact cannot hold.
    #[error("the file name {} is not UTF-8", path.display())]
    NotUtf8 {
        /// The file, with the foreign bytes replaced.
        path: PathBuf,
    },

    /// A symbolic link in an input leads nowhere.
    #[error("{} is a symbolic link to {}, which does not exist", path.display(), target.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },

    /// A symbolic link in an input leads to itself, or to a folder above it.
    #[error("{} is a symbolic link to itself, or to a folder that contains it", path.display())]
    LinkLoop {
        /// The link.
        path: PathBuf,
    },

    /// A pipe, a socket or a device where a file is due.
    #[error("{} is neither a file nor a folder", path.display())]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },

    /// An input changed each time it was read.
    #[error("{} changed while it was read", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },

    /// A path in an artifact's listing that leads outside of the artifact.
    #[error("`{path}` is no path inside an artifact")]
    BadPath {
        /// The path as listed.
        path: String,
    },

    /// A blob that a listing names is not in the store, or has another size.
    #[error("the store lacks the blob {digest}")]
    MissingBlob {
        /// Its digest.
        digest: Digest,
    },

    /// The manifest given to a commit is not the one that was claimed. A bug of the caller.
    #[error("the manifest to commit has key {manifest}, but the claim is on {claimed}")]
    ForeignManifest {
        /// The key of the manifest.
        manifest: Digest,
        /// The key of the claim.
        claimed: Digest,
    },

    /// Not the content came out that the key says.
    #[error("the content is {found}, and not {expected} as its key says")]
    OtherOutput {
        /// Digest of the listing that the key was made of.
        expected: Digest,
        /// Digest of what there is.
        found: Digest,
    },

    /// A record could not be written as JSON.
    #[error("the record of {key} cannot be written: {source}")]
    Encode {
        /// The action.
        key: Digest,
        /// Why.
        source: serde_json::Error,
    },
}

impl StoreError {
    /// What to do, as an imperative sentence, where there is something to say.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Full(_) => {
                "Free some space on that disk, or name a store on another one with QPIPE_CACHE; finished nodes are kept."
            }
            Self::NotWritable(_) => {
                "Make that path writable, or name another store with QPIPE_CACHE; a read-only store still serves what it holds."
            }
            Self::NewerFormat { .. } => "Update qpipe, or name another store with QPIPE_CACHE.",
            Self::UnreadableFormat { .. } => {
                "Put a store's folder there (its `format` file says `qpipe-store 1`), or name another store with QPIPE_CACHE."
            }
            Self::NotAStore { .. } | Self::NotAFolder { .. } => {
                "Name an empty folder, a store, or a path that does not exist yet with QPIPE_CACHE."
            }
            Self::NotUtf8 { .. } => "Rename the file.",
            Self::BrokenLink { .. } | Self::LinkLoop { .. } => "Remove the link, or make it point to a file.",
            Self::NotAFile { .. } => "Take it out of the folder.",
            Self::Changing { .. } => "Run again when nothing writes to the file any more.",
            Self::MissingBlob { .. } => {
                "Run `qpipe cache verify`, then run the pipeline again: what is lost is computed again."
            }
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "Check the permissions of that path."
            }
            _ => return None,
        })
    }

    /// Whether it is the user's input that is not as it should be, and neither the store nor the disk.
    pub fn is_of_input(&self) -> bool {
        matches!(
            self,
            Self::NotUtf8 { .. } | Self::BrokenLink { .. } | Self::LinkLoop { .. } | Self::NotAFile { .. }
        )
    }

    /// An error of writing into the store or to a results folder.
    pub(crate) fn writing(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::NotWritable(error),
            _ => Self::from(error),
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            io::ErrorKind::ReadOnlyFilesystem => Self::NotWritable(error),
            _ => Self::Io(error),
        }
    }
}
