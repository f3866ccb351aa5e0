//! `qpipe plan`.

use std::fmt::Write;

use clap::Args;

use super::exit::Exit;
use super::failure::Failure;
use super::open::{FileArgs, environment, store};
use super::printer;
use crate::fetch::Lock;
use crate::plan::{Machine, Planner, marked, plan_rows, with_ancestors};

/// Shows what would run, and why.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Only these nodes and what they need.
    #[arg(long, value_name = "NODE", num_args = 1..)]
    only: Vec<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn exec(args: &PlanArgs) -> Result<Exit, Failure> {
    environment()?;
    let pipeline = args.file.load()?;
    let store = store()?;
    let machine = Machine::detect(Some(store.root()));
    let planner = Planner::new(&pipeline, &store, &machine);
    let wanted = marked(&pipeline, &args.only, true).map_err(|error| Failure::selection(&error))?;
    let wanted = with_ancestors(&pipeline, wanted);
    let lock = Lock::load(&Lock::path_of(&pipeline.file)).map_err(|error| Failure::lock(&error))?;
    let (states, _) =
        planner.examine_all(&lock, &wanted).map_err(|errors| Failure::plan(&pipeline, &errors))?;
    let rows = plan_rows(&pipeline, &states, &wanted);
    if args.json {
        printer::out(serde_json::to_string_pretty(&rows).unwrap_or_default());
        return Ok(Exit::Done);
    }
    let width = rows.iter().map(|row| row.node.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  {:10}  {:8}  {:12}  why\n", "node", "kind", "state", "key");
    for row in &rows {
        let key = row.key.map_or_else(String::new, |key| key.short());
        let line = format!("{:width$}  {:10}  {:8}  {key:12}  {}", row.node, row.kind, row.state, row.reason);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let count = |state: &str| rows.iter().filter(|row| row.state == state).count();
    let _ =
        write!(text, "{} cached, {} to run, {} to be seen", count("cached"), count("run"), count("unknown"));
    printer::out(text);
    Ok(Exit::Done)
}
