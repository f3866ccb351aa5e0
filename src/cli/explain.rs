//! `qpipe explain`.

use std::fmt::Write;

use clap::Args;
use qpipe_cache::Manifest;

use super::exit::Exit;
use super::failure::Failure;
use super::open::{FileArgs, environment, store};
use super::{printer, size};
use crate::fetch::Lock;
use crate::plan::{Machine, Planner, Reason, State, find, marked, with_ancestors};

/// Shows a node's key and what is in it, and why it runs or not.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A node, or a group of instances.
    node: String,
    #[command(flatten)]
    file: FileArgs,
}

pub(super) fn exec(args: &ExplainArgs) -> Result<Exit, Failure> {
    environment()?;
    let pipeline = args.file.load()?;
    let store = store()?;
    let machine = Machine::detect(Some(store.root()));
    let planner = Planner::new(&pipeline, &store, &machine);
    let indices = find(&pipeline, &args.node).map_err(|error| Failure::selection(&error))?;
    let only = std::slice::from_ref(&args.node);
    let wanted = marked(&pipeline, only, true).map_err(|error| Failure::selection(&error))?;
    let wanted = with_ancestors(&pipeline, wanted);
    let lock = Lock::load(&Lock::path_of(&pipeline.file)).map_err(|error| Failure::lock(&error))?;
    let (states, _) =
        planner.examine_all(&lock, &wanted).map_err(|errors| Failure::plan(&pipeline, &errors))?;
    for index in indices {
        let instance = &pipeline.instances[index];
        let mut text = format!("{} ({})\n", instance.id, instance.kind.name);
        match &states[index] {
            State::Cached(known) => {
                let record =
                    store.peek(&known.key, instance.kind.name).map_err(|error| Failure::store(&error))?;
                let _ = writeln!(text, "  cached: nothing in its manifest changed");
                let _ = writeln!(text, "  key {}", known.key);
                if let Some(record) = record {
                    let _ = writeln!(
                        text,
                        "  made by run {} on {} in {}",
                        record.meta.run,
                        record.meta.host,
                        size::seconds(record.meta.seconds)
                    );
                    for (fact, value) in &record.meta.facts {
                        let _ = writeln!(text, "  {fact}: {value}");
                    }
                    manifest(&mut text, &record.manifest);
                }
                let _ =
                    writeln!(text, "  output {} ({})", known.content, size::bytes(known.output.total_size()));
                for (name, entry) in &known.output.files {
                    let _ = writeln!(text, "    {} {} {name}", entry.digest.short(), size::bytes(entry.size));
                }
            }
            State::Due(due) => {
                let _ = writeln!(text, "  would run: {}", due.reason);
                if let Reason::Changed { differences, .. } = &due.reason {
                    for difference in differences {
                        let _ = writeln!(text, "    {}: {difference}", difference.field);
                    }
                }
                if let Some(key) = &due.key {
                    let _ = writeln!(text, "  key {key}");
                }
                if let Some(due) = &due.manifest {
                    manifest(&mut text, due);
                }
            }
            State::Blocked(inputs) => {
                let names: Vec<&str> =
                    inputs.iter().map(|&input| pipeline.instances[input].id.as_str()).collect();
                let _ = writeln!(text, "  key not known before these ran: {}", names.join(", "));
            }
        }
        printer::out(text.trim_end());
    }
    Ok(Exit::Done)
}

fn manifest(text: &mut String, manifest: &Manifest) {
    let _ = writeln!(
        text,
        "  manifest (schema {}, {} version {})",
        manifest.schema, manifest.kind, manifest.version
    );
    let _ = writeln!(text, "    params {}", manifest.params);
    for (port, value) in &manifest.inputs {
        let _ = writeln!(text, "    input {port} {value}");
    }
    for (name, value) in &manifest.runtime {
        let _ = writeln!(text, "    runtime {name} {value}");
    }
}
