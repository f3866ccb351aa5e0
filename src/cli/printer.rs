//! stdout and stderr. A reader that went away (`qpipe plan | head`) is no error.

use std::io::{Write, stderr, stdout};

/// A result.
pub(super) fn out(text: impl AsRef<str>) {
    let mut stdout = stdout().lock();
    let _ = writeln!(stdout, "{}", text.as_ref());
}

/// Everything else.
pub(super) fn err(text: impl AsRef<str>) {
    let mut stderr = stderr().lock();
    let _ = writeln!(stderr, "{}", text.as_ref());
}
