//! `qpipe completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::exit::Exit;
use super::failure::Failure;
use super::printer;

/// Prints the completion script of a shell.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[expect(clippy::unnecessary_wraps, reason = "all commands have one signature")]
pub(super) fn exec(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut command = super::Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "qpipe", &mut script);
    printer::out(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
}
