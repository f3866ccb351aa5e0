//! Exit codes: a public contract.

use std::panic::{UnwindSafe, catch_unwind};
use std::process::ExitCode;

use super::printer;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done.
    Done = 0,
    /// A bug of qpipe's.
    Bug = 1,
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

/// How `command` ends. A panic has said on stderr what it is.
pub(super) fn caught(command: impl FnOnce() -> Exit + UnwindSafe) -> Exit {
    catch_unwind(command).unwrap_or_else(|_| {
        printer::err("error: this is a bug of qpipe's\n  help: Please report it, with the lines above.");
        Exit::Bug
    })
}

#[cfg(test)]
#[expect(clippy::panic, reason = "that is what is tested")]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_bug_and_has_its_exit_code() {
        assert_eq!(caught(|| Exit::Invalid), Exit::Invalid);
        assert_eq!(caught(|| panic!("no such row")), Exit::Bug);
        assert_eq!(Exit::Bug as u8, 1, "docs/events.md");
    }
}
