//! Exit codes: a public contract.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done.
    Done = 0,
    /// The command line does not parse.
    Usage = 2,
    /// The pipeline file is not valid.
    Invalid = 3,
    /// A node failed.
    NodeFailed = 4,
    /// No libtorch, no disk space, no network, an unreadable store.
    Environment = 5,
    /// Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
