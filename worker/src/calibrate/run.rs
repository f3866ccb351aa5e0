//! What both ways of measuring share: the samples on their grid, and where to start.

use std::ops::Range;

use qpipe_nodes::kinds::Extent;
use tch::Tensor;

use super::batches::MicroBatch;
use super::observe::{Traveller, accumulators};
use super::samples::Samples;
use super::statistics::Statistics;
use super::units::{Progress, Units};
use crate::context::Context;
use crate::error::ActionError;
use crate::model::{Attention, BlockRunner, Checkpoint, LoadOptions};

/// A calibration that is to be computed.
pub(super) struct Run<'a> {
    /// The action.
    pub(super) context: &'a Context<'a>,
    /// The model.
    pub(super) checkpoint: &'a Checkpoint,
    /// How its blocks are loaded.
    pub(super) options: LoadOptions,
    /// The samples.
    pub(super) samples: &'a Samples,
    /// All micro-batches, those of a previous calibration included.
    pub(super) batches: &'a [MicroBatch],
    /// What is measured.
    pub(super) extent: Extent,
    /// A smaller calibration to go on from.
    pub(super) previous: Option<&'a Statistics>,
    /// How many micro-batches are in that one.
    pub(super) start: usize,
}

impl Run<'_> {
    /// Micro-batch number `number` in front of block 0.
    pub(super) fn embedded(&self, runner: &BlockRunner<'_>, number: usize) -> Result<Tensor, ActionError> {
        let laid = self.batches[number].lay(&self.samples.sequences, self.context.device())?;
        Ok(runner.embed(&laid.ids)?)
    }

    /// Micro-batch number `number` with its hidden states `hidden`.
    pub(super) fn traveller(
        &self,
        runner: &BlockRunner<'_>,
        number: usize,
        hidden: Tensor,
    ) -> Result<Traveller<'_>, ActionError> {
        let batch = &self.batches[number];
        let laid = batch.lay(&self.samples.sequences, self.context.device())?;
        Ok(Traveller { batch, frame: runner.frame(&laid.positions, &Attention::Causal), hidden, laid })
    }

    /// The measurements that `blocks` have: an interrupted attempt's, else those of the smaller calibration, else
    /// none.
    pub(super) fn begin(&self, blocks: Range<usize>, units: &mut Units<'_>) -> Result<Progress, ActionError> {
        if let Some(progress) = units.restore(blocks.len(), self.extent)?
            && progress.done >= self.start
        {
            return Ok(progress);
        }
        let device = self.context.device();
        let config = &self.checkpoint.config;
        let measured = blocks.map(|index| match self.previous {
            Some(previous) => previous.accumulators(index, self.extent, device),
            None => Ok(accumulators(config, self.extent, device)?),
        });
        Ok(Progress { done: self.start, blocks: measured.collect::<Result<_, _>>()? })
    }

    /// Samples in the first `batches` micro-batches.
    pub(super) fn samples_in(&self, batches: usize) -> u64 {
        self.batches[..batches].iter().map(|batch| batch.samples.len() as u64).sum()
    }
}
