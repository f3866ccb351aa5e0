//! Log lines on stderr: `-v`, `-vv`, RUST_LOG.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::colour;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log. RUST_LOG wins over `verbose`.
pub(super) fn start(verbose: u8, format: LogFormat) {
    let default = match verbose {
        0 => "warn",
        1 => "qpipe=debug,worker=debug,warn",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour::wanted())
        .with_target(verbose > 1);
    match format {
        LogFormat::Text => builder.without_time().init(),
        LogFormat::Json => builder.json().init(),
    }
}
