//! `qpipe-worker`: reads actions from stdin, writes events to stdout. Started by `qpipe`.

use std::process::ExitCode;

fn main() -> ExitCode {
    qpipe_worker::serve::main()
}
