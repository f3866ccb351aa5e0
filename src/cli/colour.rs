//! Whether stderr gets colours.

use std::io::{IsTerminal, stderr};

/// Only on a terminal, and only if NO_COLOR is not set.
pub(super) fn wanted() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
