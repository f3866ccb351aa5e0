//! How much a calibration measures, where the file leaves it out: what its readers in the file need. That is
//! settled before any key is made, so that a default written out and one left out have one key.

use qpipe_nodes::Kind;
use qpipe_nodes::kinds::{Calibrate, Extent};
use serde_json::{Value as Json, json};

use super::document::Declaration;
use super::error::{Code, Mistake, Mistakes};
use super::instance::Instance;
use super::value::find;

/// The kind that has readers, and its parameter.
const KIND: &str = Calibrate::NAME;
const PARAM: &str = "statistics";

/// Fills in `statistics` of the calibrations among `instances`, of which `declared_by` gives the declarations.
/// Too little written in the file is a mistake.
pub(super) fn fill_in(
    instances: &mut [Instance],
    declarations: &[Declaration],
    declared_by: &[usize],
    mistakes: &mut Mistakes,
) {
    if !instances.iter().any(|instance| instance.kind.name == KIND) {
        return;
    }
    // For each instance the most that is read of it, and by whom.
    let mut needs: Vec<Option<(Extent, usize)>> = vec![None; instances.len()];
    for (reader, instance) in instances.iter().enumerate() {
        let Some(extent) = Extent::for_reader(instance.parsed.reads) else { continue };
        for input in instance.inputs.values().flat_map(|binding| binding.iter()) {
            if needs[input].is_none_or(|(known, _)| known < extent) {
                needs[input] = Some((extent, reader));
            }
        }
    }
    for (index, need) in needs.into_iter().enumerate() {
        if instances[index].kind.name != KIND {
            continue;
        }
        match (extent_of(&instances[index].parsed.params), need) {
            (None, need) => set(&mut instances[index], need.map_or(Extent::Ranges, |(extent, _)| extent)),
            (Some(given), Some((extent, reader))) if given < extent => {
                let declaration = &declarations[declared_by[index]];
                let name = &declaration.name;
                let span = find(&declaration.entries, PARAM).map_or(name.span, |entry| entry.value.span);
                let message = format!(
                    "`{}` reads {} of `{}`, which measures {} only",
                    instances[reader].id,
                    word(extent),
                    name.text,
                    word(given)
                );
                mistakes.push(
                    Mistake::new(Code::InvalidValue, span, message)
                        .help("Leave `statistics` out: it follows from what is read."),
                );
            }
            _ => {}
        }
    }
}

fn extent_of(params: &Json) -> Option<Extent> {
    serde_json::from_value(params[PARAM].clone()).ok()
}

fn word(extent: Extent) -> &'static str {
    match extent {
        Extent::Samples => "samples",
        Extent::Ranges => "ranges",
        Extent::Moments => "moments",
    }
}

/// Reads the parameters again with this one in them: what follows from it follows.
fn set(instance: &mut Instance, extent: Extent) {
    let mut params = instance.parsed.params.clone();
    params[PARAM] = json!(extent);
    let ports: Vec<&str> = instance.inputs.keys().copied().collect();
    if let Ok(parsed) = (instance.kind.parse)(params, &ports) {
        instance.parsed = parsed;
    }
}
