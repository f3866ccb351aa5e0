//! The command line: the only place that prints. stdout carries results, stderr the rest.

mod bars;
mod cache;
mod colour;
mod completions;
mod doctor;
mod events_jsonl;
mod exit;
mod explain;
mod failure;
mod graph;
mod kernels;
mod lines;
mod logging;
mod open;
mod plan;
mod printer;
mod run;
mod schema;
mod show;
mod size;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Exit;
use logging::LogFormat;

/// Runs quantization studies declared in one YAML file, and never computes twice what is known.
#[derive(Debug, Parser)]
#[command(name = "qpipe", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// Say more: -v what is decided, -vv everything. Turns bars off.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// How log lines are written to stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Plan(plan::PlanArgs),
    Explain(explain::ExplainArgs),
    Graph(graph::GraphArgs),
    Show(show::ShowArgs),
    Cache(cache::CacheArgs),
    Schema(schema::SchemaArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
}

/// Runs the program; the exit codes are listed in docs/events.md.
pub fn main() -> ExitCode {
    exit::caught(command).into()
}

fn command() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too, and go to stdout.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    logging::start(cli.verbose, cli.log_format);
    let result = match &cli.command {
        Command::Run(args) => run::exec(args, cli.verbose, cli.log_format),
        Command::Plan(args) => plan::exec(args),
        Command::Explain(args) => explain::exec(args),
        Command::Graph(args) => graph::exec(args),
        Command::Show(args) => show::exec(args),
        Command::Cache(args) => cache::exec(args),
        Command::Schema(args) => schema::exec(args),
        Command::Doctor(args) => doctor::exec(args),
        Command::Completions(args) => completions::exec(args),
    };
    if let Some(error) = printer::lost() {
        printer::err(format!("error: the result could not be written to stdout: {error}"));
        return Exit::Environment;
    }
    match result {
        Ok(exit) => exit,
        Err(failure) => failure.print(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
