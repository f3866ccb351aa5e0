//! Which of the ways to measure a model takes least memory, and whether that fits. Each gives the same bytes.

use qpipe_nodes::kinds::Extent;
use tch::Kind;

use super::accumulate::Accumulator;
use super::batches::MicroBatch;
use super::observe::channels;
use crate::model::{Checkpoint, Config, ModelError};

/// libtorch itself, its threads' buffers and what is small.
const BASE: u64 = 400 << 20;

/// How samples and blocks take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All blocks in memory; a micro-batch goes through all of them before the next one.
    Resident,
    /// One block in memory; all micro-batches go through it before the next one. Hidden states are kept in memory.
    Streamed,
    /// The same, with hidden states on disk.
    StreamedFromDisk,
}

/// What the ways need, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// All weights of all blocks, and of one.
    blocks: u64,
    block: u64,
    /// What is measured of all blocks, and of one.
    pub(super) measured: u64,
    pub(super) measured_block: u64,
    /// Hidden states of all samples.
    hidden: u64,
    /// A micro-batch on its way through a block, and a packed copy of second moments.
    working: u64,
}

impl Needs {
    /// Of measuring `extent` on `batches` with the blocks of `checkpoint` in `kind`.
    pub(super) fn of(
        checkpoint: &Checkpoint,
        kind: Kind,
        extent: Extent,
        batches: &[MicroBatch],
    ) -> Result<Self, ModelError> {
        let config = &checkpoint.config;
        let element = kind.elt_size_in_bytes() as u64;
        let mut elements = 0;
        for name in checkpoint.names().filter(|name| name.starts_with("model.layers.")) {
            elements += checkpoint.shape(name)?.iter().product::<i64>() as u64;
        }
        let count = config.layers.max(1) as u64;
        let blocks = elements * element;
        let measured_block: u64 =
            channels(config).iter().map(|&channels| Accumulator::bytes(channels, extent)).sum();
        let hidden = batches.iter().map(|batch| batch.cells() * config.hidden_size as u64 * element).sum();
        let largest = batches.iter().map(MicroBatch::cells).max().unwrap_or(0);
        Ok(Self {
            blocks,
            block: blocks / count,
            measured: measured_block * count,
            measured_block,
            hidden,
            working: working(config, largest, element, extent),
        })
    }

    /// Bytes that `way` needs.
    pub(super) fn bytes(&self, way: Way) -> u64 {
        let common = BASE + self.working;
        match way {
            Way::Resident => common + self.blocks + self.measured,
            Way::Streamed => common + self.block + self.measured_block + self.hidden,
            Way::StreamedFromDisk => common + self.block + self.measured_block,
        }
    }

    /// The way that needs least memory among those without the disk, which are equally fast; the disk where `limit`
    /// allows none of them.
    pub(super) fn choose(&self, limit: Option<u64>) -> Way {
        let fits = |way: &Way| limit.is_none_or(|limit| self.bytes(*way) <= limit);
        let in_memory = [Way::Resident, Way::Streamed].into_iter().filter(fits);
        in_memory.min_by_key(|way| self.bytes(*way)).unwrap_or(Way::StreamedFromDisk)
    }
}

/// A pass of `cells` tokens through a block, and the packed moments of the widest input.
fn working(config: &Config, cells: u64, element: u64, extent: Extent) -> u64 {
    let widest = channels(config).into_iter().max().unwrap_or(0);
    let packed = if extent == Extent::Moments { Accumulator::bytes(widest, extent) } else { 0 };
    cells * config.working_bytes(element) + packed
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs =
        Needs { blocks: 8000, block: 1000, measured: 4000, measured_block: 500, hidden: 700, working: 60 };

    #[test]
    fn what_needs_less_memory_is_taken() {
        assert_eq!(NEEDS.choose(None), Way::Streamed);
        assert_eq!(NEEDS.choose(Some(BASE + 2260)), Way::Streamed);
        assert_eq!(NEEDS.choose(Some(BASE + 2259)), Way::StreamedFromDisk);
        assert_eq!(NEEDS.choose(Some(0)), Way::StreamedFromDisk, "it is tried");
        let many_samples = Needs { hidden: 70_000, ..NEEDS };
        assert_eq!(many_samples.choose(None), Way::Resident);
        assert_eq!(many_samples.choose(Some(BASE + 12_060)), Way::Resident);
        assert_eq!(many_samples.choose(Some(BASE + 12_059)), Way::StreamedFromDisk);
    }
}
