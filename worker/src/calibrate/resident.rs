//! The whole model in memory, with the running measurements of all blocks: a micro-batch goes through all blocks
//! before the next one does.

use std::path::Path;

use super::measured;
use super::observe::advance;
use super::run::Run;
use super::statistics::block_file;
use super::units::Units;
use crate::error::ActionError;
use crate::model::{Block, BlockRunner};

/// Measures all blocks and writes their files into `out`. `bytes` is what the measurements take.
pub(super) fn measure(run: &Run<'_>, bytes: u64, out: &Path) -> Result<(), ActionError> {
    let context = run.context;
    let runner = BlockRunner::new(run.checkpoint, run.options)?;
    let blocks: Vec<Block> =
        (0..runner.blocks()).map(|index| runner.load_block(index)).collect::<Result<_, _>>()?;
    let mut units = Units::new(context, 0, bytes);
    let mut progress = run.begin(0..runner.blocks(), &mut units)?;
    let total = run.samples.sequences.len() as u64;
    context.progress(run.samples_in(progress.done), total, "samples", None);
    while progress.done < run.batches.len() {
        if let Err(stopped) = context.check_stop() {
            units.publish(&progress)?;
            return Err(stopped);
        }
        let hidden = run.embedded(&runner, progress.done)?;
        let mut traveller = run.traveller(&runner, progress.done, hidden)?;
        for (index, (block, measured)) in blocks.iter().zip(&mut progress.blocks).enumerate() {
            advance(&runner, (index, block), &mut traveller, run.samples, measured)?;
        }
        progress.done += 1;
        if progress.done < run.batches.len() {
            units.publish_if_due(&progress)?;
        }
        context.progress(run.samples_in(progress.done), total, "samples", None);
    }
    for (index, measured) in progress.blocks.iter().enumerate() {
        measured::write(&out.join(block_file(index)), index, std::slice::from_ref(measured))?;
    }
    Ok(())
}
