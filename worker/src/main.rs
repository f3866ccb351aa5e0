//! `qpipe-worker`: reads actions from stdin, writes events to stdout. Started by `qpipe`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // What `qpipe doctor --kernels` asks; otherwise actions come in on stdin.
    match std::env::args().nth(1).as_deref() {
        Some("kernels") => qpipe_worker::kernels::main(),
        _ => qpipe_worker::serve::main(),
    }
}
