//! `qpipe schema`.

use clap::Args;

use super::exit::Exit;
use super::failure::Failure;
use super::printer;
use crate::pipeline::schema;

/// Prints the JSON Schema of pipeline files, for editors.
#[derive(Debug, Args)]
pub(super) struct SchemaArgs {}

#[expect(clippy::unnecessary_wraps, reason = "all commands have one signature")]
pub(super) fn exec(_: &SchemaArgs) -> Result<Exit, Failure> {
    printer::out(schema::text().trim_end());
    Ok(Exit::Done)
}
