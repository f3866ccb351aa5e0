//! The result of a smaller calibration of the same order, to go on from.

use qpipe_nodes::kinds::{Calibrate, Extent};
use qpipe_nodes::protocol::Level;

use super::samples::Samples;
use super::statistics::Statistics;
use crate::context::Context;
use crate::error::ActionError;

/// The result that the action was given, if the first of `samples` are its samples. What does not fit is said and
/// left alone: it would only have saved time.
pub(super) fn open(
    context: &Context<'_>,
    samples: &Samples,
    extent: Extent,
) -> Result<Option<Statistics>, ActionError> {
    let Some((_, folder)) = context.inputs(Calibrate::PREVIOUS).into_iter().next() else { return Ok(None) };
    let previous = Statistics::open(&folder)?;
    let sequences = previous.sequences()?;
    let fits = sequences.len().is_multiple_of(Calibrate::GRID as usize)
        && samples.sequences.starts_with(&sequences)
        && previous.summary().statistics >= extent;
    if fits {
        context.log(Level::Info, format!("continued from {} samples", sequences.len()));
        return Ok(Some(previous));
    }
    context.log(Level::Warn, "the smaller calibration is of other samples; this one starts anew".to_owned());
    Ok(None)
}
