//! Why a remote source could not be had, whose fault it is, and what to do.

use std::io;
use std::path::PathBuf;

use qpipe_nodes::Artifact;
use qpipe_nodes::protocol::Failure;

/// Why a remote source could not be had, or the lock file not be used.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A local file could not be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No answer, or one that broke off, for as long as patience lasted.
    #[error("{url}: {cause}")]
    Network {
        /// What was asked.
        url: String,
        /// What the connection met.
        cause: io::Error,
    },
    /// The server cannot answer at the moment.
    #[error("{url}: the server answers with status {status}")]
    Busy {
        /// What was asked.
        url: String,
        /// 429 or from 500 on.
        status: u16,
    },
    /// The environment forbids the network.
    #[error("{url} is needed, but HF_HUB_OFFLINE is set")]
    Offline {
        /// What would have been asked.
        url: String,
    },
    /// The repository's owner wants conditions to be accepted first.
    #[error("`{repo}` is gated: its owner grants access on request")]
    Gated {
        /// `org/name`.
        repo: String,
        /// Where access is asked for.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// No such repository, or none that may be seen.
    #[error("the Hub has no repository `{repo}`, or hides it")]
    NoRepository {
        /// `org/name`.
        repo: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("`{repo}` has no revision `{revision}`")]
    NoRevision {
        /// `org/name`.
        repo: String,
        /// What was asked for.
        revision: String,
    },
    /// The server refuses.
    #[error("{url}: access denied (status {status})")]
    Denied {
        /// What was asked.
        url: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// There is no such file.
    #[error("{url}: there is nothing (status {status})")]
    NotFound {
        /// What was asked.
        url: String,
        /// 404 or 410.
        status: u16,
    },
    /// Another answer than those above.
    #[error("{url}: unexpected status {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// The server's answer is not what its interface promises.
    #[error("{url}: {message}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// A repository without the files that the artifact consists of.
    #[error("`{repo}` holds no {what}")]
    NothingWanted {
        /// `org/name`.
        repo: String,
        /// The artifact.
        artifact: Artifact,
        /// What was looked for.
        what: &'static str,
    },
    /// The bytes are not the expected ones.
    #[error("{url} has {actual}, expected {expected}")]
    WrongDigest {
        /// What was asked.
        url: String,
        /// `sha256:HEX` or `blake3:HEX`.
        expected: String,
        /// Likewise.
        actual: String,
        /// Whether the lock file expects it.
        pinned: bool,
    },
    /// The file is longer than announced.
    #[error("{url} has more than the {expected} bytes that were announced")]
    TooLong {
        /// What was asked.
        url: String,
        /// Bytes.
        expected: u64,
    },
    /// A text that is not a digest.
    #[error("`{text}` is not `sha256:` or `blake3:` and 64 hexadecimal digits")]
    BadDigest {
        /// The text.
        text: String,
    },
    /// A listed file would be written outside its folder.
    #[error("the file name `{path}` leaves the artifact's folder")]
    BadPath {
        /// The name.
        path: String,
    },
    /// The lock file cannot be read.
    #[error("{}:{line}: {message}", path.display())]
    BadLock {
        /// The lock file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The lock file was written by another version of qpipe.
    #[error("{}: lock file version {version} is not understood, only {understood}", path.display())]
    LockVersion {
        /// The lock file.
        path: PathBuf,
        /// The version it names.
        version: String,
        /// The version that is.
        understood: u32,
    },
    /// The caller asked to stop.
    #[error("the download was stopped")]
    Stopped,
}

const SET_TOKEN: &str = "Set HF_TOKEN to a token of an account with access";

impl FetchError {
    /// Whose fault it is.
    pub fn class(&self) -> Failure {
        match self {
            Self::Io(_)
            | Self::Network { .. }
            | Self::Busy { .. }
            | Self::Offline { .. }
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::TooLong { .. }
            | Self::Stopped => Failure::Surroundings,
            Self::Gated { .. }
            | Self::NoRepository { .. }
            | Self::NoRevision { .. }
            | Self::Denied { .. }
            | Self::NotFound { .. }
            | Self::NothingWanted { .. }
            | Self::WrongDigest { .. }
            | Self::BadDigest { .. }
            | Self::BadPath { .. }
            | Self::BadLock { .. }
            | Self::LockVersion { .. } => Failure::User,
        }
    }

    /// What to do, where something can be done.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Network { .. } => {
                "Check the network, and HF_ENDPOINT or HTTPS_PROXY where they are used; what was received is kept."
                    .to_owned()
            }
            Self::Busy { .. } => "Run again later; what was received is kept.".to_owned(),
            Self::Offline { .. } => "Unset HF_HUB_OFFLINE, or give the path of a local copy.".to_owned(),
            Self::Gated { page, with_token: false, .. } => format!("Ask for access at {page}. {SET_TOKEN}."),
            Self::Gated { page, .. } => {
                format!("Ask for access at {page} with the account that the token belongs to.")
            }
            Self::NoRepository { with_token: false, .. } => {
                format!("Check the spelling. For a private repository: {SET_TOKEN}.")
            }
            Self::NoRepository { .. } => {
                "Check the spelling, and that the account of HF_TOKEN may read the repository.".to_owned()
            }
            Self::NoRevision { .. } => "Name a branch, a tag or a commit after `@`.".to_owned(),
            Self::Denied { with_token: false, .. } => format!("{SET_TOKEN}, if this is on the Hub."),
            Self::Denied { .. } => "Check that the account of HF_TOKEN may read this.".to_owned(),
            Self::NotFound { .. } => "Check the address.".to_owned(),
            Self::NothingWanted { artifact, .. } => {
                format!("Name a repository that holds {} in that form.", artifact.with_article())
            }
            Self::WrongDigest { pinned: true, .. } => {
                "The source no longer serves what the lock file pins. Remove its block there to take what it serves now."
                    .to_owned()
            }
            Self::WrongDigest { .. } => "If the new content is what you want, change `digest`.".to_owned(),
            Self::LockVersion { .. } => "Use the qpipe that wrote it, or remove the file.".to_owned(),
            Self::BadLock { .. } => "Restore the file from version control, or remove it.".to_owned(),
            Self::Status { .. } | Self::Answer { .. } => {
                "Check the address, and HF_ENDPOINT: the server does not answer as it should.".to_owned()
            }
            Self::Io(_)
            | Self::TooLong { .. }
            | Self::BadDigest { .. }
            | Self::BadPath { .. }
            | Self::Stopped => return None,
        };
        Some(help)
    }
}
