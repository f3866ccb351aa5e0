//! How much goes through the model at one time: as much as is fast, where memory allows it.

use fs_err as fs;
use qpipe_kernels::attention::can_attend;
use tch::Device;

use super::engine::CPU_LOGITS_BYTES;
use super::lanes::Lanes;
use super::layout::Batch;
use crate::context::Context;
use crate::error::ActionError;
use crate::memory;
use crate::model::{Decoder, Products};

/// Tokens of a batch on a CPU: enough for its matrix products, and what lies between them stays in its caches.
const CPU_TOKENS: usize = 512;
/// Tokens of a batch on a GPU.
const CUDA_TOKENS: usize = 16_384;
/// Floating-point operations on one thread that are waited for after a signal to stop: ten seconds of a core.
const MOST_WORK: f64 = 5e11;
/// The unit that keeps the memory for a later attempt, which has to lay out the same batches.
const UNIT: &str = "memory";

/// The memory that an evaluation plans with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    bytes: u64,
    device: Device,
    threads: usize,
}

impl Room {
    /// Half of what there is, as others need some, too; or what an earlier attempt found, unless it is far from there now.
    ///
    /// # Errors
    /// When the unit cannot be written.
    pub(super) fn find(context: &Context<'_>) -> Result<Self, ActionError> {
        let limit = memory::limit(context.device(), context.max_memory());
        let now = limit.map_or(u64::MAX, |bytes| bytes / 2);
        let kept = context.unit(UNIT).and_then(|path| fs::read_to_string(path).ok());
        let bytes = match kept.and_then(|text| text.parse::<u64>().ok()) {
            Some(kept) if kept / 2 <= now => kept,
            _ => {
                context.publish_unit(UNIT, |path| Ok(fs::write(path, now.to_string())?))?;
                now
            }
        };
        Ok(Self { bytes, device: context.device(), threads: context.threads() as usize })
    }

    /// Tokens a batch: the largest power of two that there is room for, up to where more is no faster.
    pub(super) fn batch_tokens(&self, decoder: &Decoder) -> usize {
        let most = if self.device.is_cuda() { CUDA_TOKENS } else { CPU_TOKENS };
        tokens_in(self.bytes, token_bytes(decoder), most)
    }

    /// How many such `batches`, all of a task, may go through the model side by side.
    pub(super) fn lanes(&self, decoder: &Decoder, batches: &[Batch]) -> Lanes {
        if self.device != Device::Cpu {
            return Lanes::new(1, self.threads);
        }
        let (config, element) = (decoder.config(), decoder.kind().elt_size_in_bytes() as u64);
        // Our own attention keeps a prefix once more in its order, the values in float32.
        let is_packed = can_attend(2, decoder.kind(), self.device, Products::FASTEST.attention);
        let packed = if is_packed { (element + 4) / 2 } else { 0 };
        let bytes = |batch: &Batch| {
            token_bytes(decoder) * batch.cells() as u64
                // A reference has its own.
                + 2 * config.cache_bytes(element + packed) * batch.prefix.len() as u64
                + 3 * CPU_LOGITS_BYTES as u64
        };
        let by_memory = self.bytes / batches.iter().map(bytes).max().unwrap_or(1);
        let tokens = batches.iter().map(Batch::cells).max().unwrap_or(1).max(1) as f64;
        let by_work = MOST_WORK * self.threads as f64 / (2.0 * config.weights() as f64 * tokens);
        let most = usize::try_from(by_memory.min(by_work as u64)).unwrap_or(usize::MAX);
        Lanes::new(most, self.threads)
    }
}

/// What a token takes on its way through a block.
fn token_bytes(decoder: &Decoder) -> u64 {
    decoder.config().working_bytes(decoder.kind().elt_size_in_bytes() as u64)
}

fn tokens_in(memory: u64, token: u64, most: usize) -> usize {
    let room = usize::try_from(memory / token.max(1)).unwrap_or(usize::MAX).clamp(1, most);
    1 << room.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_power_of_two_that_fits() {
        assert_eq!(tokens_in(u64::MAX, 1000, 1024), 1024);
        assert_eq!(tokens_in(700_000, 1000, 1024), 512);
        assert_eq!(tokens_in(0, 1000, 1024), 1);
    }
}
