//! One micro-batch through one block, its linear layers' inputs added to the block's running measurements.

use qpipe_nodes::kinds::Extent;
use tch::{Device, TchError, Tensor};

use super::accumulate::Accumulator;
use super::batches::{Laid, MicroBatch};
use super::error::CalibrateError;
use super::samples::Samples;
use crate::model::block::{INPUTS, Part};
use crate::model::{Block, BlockRunner, Config, Frame};

/// Running measurements of a block's inputs, in the order of [`INPUTS`].
pub fn accumulators(config: &Config, extent: Extent, device: Device) -> Result<Vec<Accumulator>, TchError> {
    channels(config).map(|channels| Accumulator::new(channels, extent, device)).into_iter().collect()
}

/// K of each of [`INPUTS`].
pub fn channels(config: &Config) -> [i64; 4] {
    INPUTS.map(|input| input.first.shape(config)[1])
}

/// A micro-batch on its way through the model.
#[derive(Debug)]
pub struct Traveller<'a> {
    /// Which samples it is.
    pub batch: &'a MicroBatch,
    /// Where its tokens are.
    pub laid: Laid,
    /// What the blocks need to know of it.
    pub frame: Frame,
    /// [B, T, hidden]: what the next block is given.
    pub hidden: Tensor,
}

/// Takes `traveller` through block number `index`, and adds what it sees to `accumulators`.
pub fn advance(
    runner: &BlockRunner<'_>,
    (index, block): (usize, &Block),
    traveller: &mut Traveller<'_>,
    samples: &Samples,
    accumulators: &mut [Accumulator],
) -> Result<(), CalibrateError> {
    let mut outcome = Ok(());
    let (laid, batch) = (&traveller.laid, traveller.batch);
    let hidden = std::mem::take(&mut traveller.hidden);
    traveller.hidden = runner.forward(block, hidden, &traveller.frame, &mut |part, input| {
        if outcome.is_ok() {
            outcome = add(input, laid, part, accumulators).and_then(|finite| {
                if finite {
                    return Ok(());
                }
                let row = laid.first_not_finite(input)?;
                let sample = row.and_then(|row| batch.samples.get(row));
                let place = sample.map(|&sample| samples.places[sample].clone()).unwrap_or_default();
                Err(CalibrateError::NotFinite { linear: part.full_name(index), place })
            });
        }
    });
    outcome
}

fn add(
    input: &Tensor,
    laid: &Laid,
    part: Part,
    accumulators: &mut [Accumulator],
) -> Result<bool, CalibrateError> {
    let place = INPUTS.iter().position(|input| input.first == part);
    let Some(accumulator) = place.and_then(|place| accumulators.get_mut(place)) else { return Ok(true) };
    Ok(accumulator.add(&laid.tokens_of(input)?)?)
}
