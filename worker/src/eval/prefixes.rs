//! What the rows of a family begin with, through the model once, for all of its batches.

use std::sync::Arc;

use qpipe_kernels::FewRowsAlike;
use qpipe_kernels::attention::PackedPrefix;
use tch::{Kind, Tensor};

use crate::model::{Attention, Decoder, KvCache};

/// A model, and the one that it is compared with.
pub type Models<'a> = (&'a Decoder, Option<&'a Decoder>);

/// The keys and values of one prefix; of none, which is the beginning of every row, there are none.
#[derive(Debug, Default)]
pub struct ReadPrefix {
    ids: Arc<[i64]>,
    /// The model's.
    pub(super) own: Option<KvCache>,
    /// Those of the model that it is compared with.
    pub(super) reference: Option<KvCache>,
}

// SAFETY: passes behind a shared prefix take views of its tensors and write to none, and libtorch counts references to a tensor atomically. What they bring
// into attention's order lies in a `OnceLock`, and is `Sync` by itself.
unsafe impl Sync for ReadPrefix {}
const _: () = {
    const fn is_sync<T: Send + Sync>() {}
    is_sync::<PackedPrefix>();
};

impl ReadPrefix {
    /// Has both models read `ids`, unless that is what they read last: the next batch is often of the same family.
    pub fn hold(&mut self, (decoder, reference): Models<'_>, ids: &Arc<[i64]>) -> &Self {
        if !self.is(ids) {
            // Before others take its place in memory.
            *self = Self::default();
            if !ids.is_empty() {
                let own = Some(read(decoder, ids));
                let reference = reference.map(|reference| read(reference, ids));
                *self = Self { ids: Arc::clone(ids), own, reference };
            }
        }
        self
    }

    /// Bytes that libtorch's allocator knows nothing of.
    pub fn packed_bytes(&self) -> u64 {
        [&self.own, &self.reference].into_iter().flatten().map(KvCache::packed_bytes).sum()
    }

    /// Whether it is that of `ids`.
    pub(super) fn is(&self, ids: &[i64]) -> bool {
        *self.ids == *ids
    }
}

/// Prefixes that several lanes have in common.
#[derive(Debug, Default)]
pub(super) struct Shared(Vec<ReadPrefix>);

impl Shared {
    /// Has both models read `ids`, on all threads there are, unless they did.
    pub(super) fn add(&mut self, models: Models<'_>, ids: &Arc<[i64]>) {
        if self.of(ids).is_none() {
            let mut prefix = ReadPrefix::default();
            prefix.hold(models, ids);
            self.0.push(prefix);
        }
    }

    /// That of `ids`, if it was read.
    pub(super) fn of(&self, ids: &[i64]) -> Option<&ReadPrefix> {
        self.0.iter().find(|prefix| prefix.is(ids))
    }
}

/// The keys and values of `ids`, of which there is at least one.
fn read(decoder: &Decoder, ids: &[i64]) -> KvCache {
    let length = ids.len() as i64;
    let mut cache = KvCache::with_capacity(decoder.config(), length);
    let options = (Kind::Int64, decoder.device());
    let ids = Tensor::from_slice(ids).to_device(decoder.device()).unsqueeze(0);
    let positions = Tensor::arange(length, options).unsqueeze(0);
    let none = Tensor::zeros([1, 0], options);
    let _alike = FewRowsAlike::start();
    let _ = tch::no_grad(|| decoder.hidden_at(&none, &ids, &positions, &Attention::Causal, Some(&mut cache)));
    cache
}
