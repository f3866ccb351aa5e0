//! `qpipe`.

use std::process::ExitCode;

fn main() -> ExitCode {
    qpipe::cli::main()
}
