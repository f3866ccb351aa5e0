//! The whole model in memory, with the running measurements of all blocks: a micro-batch goes through all blocks
//! before the next one does.

use qpipe_nodes::kinds::Extent;

use super::accumulate::Accumulator;
use super::batches::grid;
use super::observe::{Traveller, accumulators, advance};
use super::samples::Samples;
use super::statistics::Statistics;
use crate::context::Context;
use crate::error::ActionError;
use crate::model::{Attention, Block, BlockRunner};

/// The measurements of every block over all samples.
pub(super) fn measure(
    context: &Context<'_>,
    runner: &BlockRunner<'_>,
    samples: &Samples,
    extent: Extent,
    previous: Option<&Statistics>,
) -> Result<Vec<Vec<Accumulator>>, ActionError> {
    let device = context.device();
    let blocks: Vec<Block> =
        (0..runner.blocks()).map(|index| runner.load_block(index)).collect::<Result<_, _>>()?;
    let mut measured: Vec<Vec<Accumulator>> = (0..runner.blocks())
        .map(|index| match previous {
            Some(previous) => previous.accumulators(index, extent, device),
            None => Ok(accumulators(runner.config(), extent, device)?),
        })
        .collect::<Result<_, _>>()?;
    let total = samples.sequences.len() as u64;
    let mut done = previous.map_or(0, Statistics::samples);
    for batch in &grid(&samples.sequences, done as usize) {
        context.check_stop()?;
        let laid = batch.lay(&samples.sequences, device)?;
        let mut traveller = Traveller {
            batch,
            frame: runner.frame(&laid.positions, &Attention::Causal),
            hidden: runner.embed(&laid.ids)?,
            laid,
        };
        for (index, (block, measured)) in blocks.iter().zip(&mut measured).enumerate() {
            advance(runner, (index, block), &mut traveller, samples, measured)?;
        }
        done += batch.samples.len() as u64;
        context.progress(done, total, "samples", None);
    }
    Ok(measured)
}
