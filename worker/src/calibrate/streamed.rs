//! One block in memory at a time: all micro-batches go through it before the next block is loaded. The additions to
//! each sum and their order are those of [`super::resident`], and so are the bits.
//!
//! A finished block's measurements are a unit, which becomes a file of the artifact in the end. An interrupted
//! attempt goes on at the newest kept hidden states; blocks that are finished are only passed through again.

use std::path::Path;

use fs_err as fs;

use super::hidden::{Hidden, HiddenStates};
use super::measured;
use super::observe::advance;
use super::run::Run;
use super::statistics::block_file;
use super::units::{Progress, Units};
use crate::error::ActionError;
use crate::model::{Block, BlockRunner, Checkpoint};

/// Measures all blocks and moves their files into `out`. `bytes` is what the measurements of one block take.
pub(super) fn measure(run: &Run<'_>, on_disk: bool, bytes: u64, out: &Path) -> Result<(), ActionError> {
    let (context, blocks) = (run.context, run.checkpoint.config.layers);
    let is_unfinished = |index: &usize| context.unit(&block_file(*index)).is_none();
    if let (Some(first), Some(last)) = ((0..blocks).find(is_unfinished), (0..blocks).rfind(is_unfinished)) {
        let mut hidden = Hidden::begin(run, on_disk, first)?;
        for index in hidden.block()..=last {
            context.check_stop()?;
            // A map of its own: the pages of the blocks before are given back.
            let checkpoint = Checkpoint::open(&run.checkpoint.folder)?;
            let runner = BlockRunner::new(&checkpoint, run.options)?;
            let block = runner.load_block(index)?;
            let keep = index < last;
            hidden.advance(run, keep, &mut |states| pass(run, &runner, (index, &block), bytes, states))?;
        }
        hidden.forget(run);
    }
    for index in 0..blocks {
        let name = block_file(index);
        if let Some(unit) = context.unit(&name) {
            fs::rename(unit, out.join(name))?;
        }
    }
    Ok(())
}

/// Takes all micro-batches through one block, and measures it unless an earlier attempt did.
fn pass(
    run: &Run<'_>,
    runner: &BlockRunner<'_>,
    (index, block): (usize, &Block),
    bytes: u64,
    states: &mut dyn HiddenStates,
) -> Result<(), ActionError> {
    let context = run.context;
    let mut units = Units::new(context, index, bytes);
    let is_finished = context.unit(&block_file(index)).is_some();
    let mut progress = if is_finished { None } else { Some(run.begin(index..index + 1, &mut units)?) };
    let blocks = run.checkpoint.config.layers as u64;
    for number in run.start..run.batches.len() {
        let mut traveller = run.traveller(runner, number, states.take(number)?)?;
        match &mut progress {
            Some(progress) if progress.done <= number => {
                if let Err(stopped) = context.check_stop() {
                    units.publish(progress)?;
                    return Err(stopped);
                }
                advance(runner, (index, block), &mut traveller, run.samples, &mut progress.blocks[0])?;
                progress.done = number + 1;
                if progress.done < run.batches.len() {
                    units.publish_if_due(progress)?;
                }
            }
            _ => {
                context.check_stop()?;
                traveller.hidden = runner.forward(block, traveller.hidden, &traveller.frame, &mut |_, _| {});
            }
        }
        states.put(number, traveller.hidden)?;
        let note = format!("{} of {} samples", run.samples_in(number + 1), run.samples.sequences.len());
        context.progress(index as u64, blocks, "layers", Some(note));
    }
    if let Some(Progress { blocks, .. }) = progress {
        context.publish_unit(&block_file(index), |path| Ok(measured::write(path, index, &blocks)?))?;
        units.forget();
    }
    context.progress(index as u64 + 1, blocks, "layers", None);
    Ok(())
}
