//! stdout and stderr. A reader that went away (`qpipe plan | head`) is no error; a full disk behind stdout is one, which the
//! program's exit tells.

use std::io::{ErrorKind, Write, stderr, stdout};
use std::sync::OnceLock;

/// Why a result could not be written, the first time.
static LOST: OnceLock<String> = OnceLock::new();

/// A result.
pub(super) fn out(text: impl AsRef<str>) {
    let mut stdout = stdout().lock();
    note(writeln!(stdout, "{}", text.as_ref()).and_then(|()| stdout.flush()));
}

fn note(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error.to_string());
    }
}

/// Why results were lost, if they were.
pub(super) fn lost() -> Option<&'static str> {
    LOST.get().map(String::as_str)
}

/// Everything else.
pub(super) fn err(text: impl AsRef<str>) {
    let mut stderr = stderr().lock();
    let _ = writeln!(stderr, "{}", text.as_ref());
}
