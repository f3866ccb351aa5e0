//! `qpipe`.

use std::process::ExitCode;

/// A run with nothing to do reads thousands of small records: a fifth of its time was malloc and free.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    qpipe::cli::main()
}
