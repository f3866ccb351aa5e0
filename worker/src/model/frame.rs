//! What all blocks share in one pass over a batch: where its tokens stand, and what they see.

use tch::Tensor;

use super::patterns::{Attention, Patterns, Setting};
use super::rope::{RotaryEmbedding, Rotation};

/// A pass over a batch.
#[derive(Debug)]
pub struct Frame {
    pub(super) rotation: Rotation,
    pub(super) patterns: Patterns,
}

impl Frame {
    /// `queries` i64 [B, T] and `keys` i64 [B, S] are positions, the first `shared` of S those of a shared prefix.
    pub(super) fn new(
        attention: &Attention,
        (queries, keys): (&Tensor, &Tensor),
        shared: i64,
        setting: Setting<'_>,
        rotary: &RotaryEmbedding,
    ) -> Self {
        Self {
            rotation: rotary.at(queries, setting.kind),
            patterns: Patterns::new(attention, (queries, keys), shared, setting),
        }
    }
}

/// Tokens of a batch whose hidden states are wanted. Nothing of the others is needed after the last block's keys and values.
#[derive(Debug)]
pub(super) struct Wanted {
    /// i64 [B · W], places in the flattened batch.
    index: Tensor,
    /// B and W.
    size: (i64, i64),
    /// Of their queries.
    pub(super) frame: Frame,
}

impl Wanted {
    /// Of the T tokens of each row those at `places`, i64 [B, W]; the rest as in [`Frame::new`].
    pub(super) fn new(
        places: &Tensor,
        attention: &Attention,
        (queries, keys): (&Tensor, &Tensor),
        shared: i64,
        setting: Setting<'_>,
        rotary: &RotaryEmbedding,
    ) -> Self {
        let (batch, new) = (queries.size()[0], queries.size()[1]);
        let rows = Tensor::arange(batch, (places.kind(), places.device())).unsqueeze(1) * new;
        let attention = attention.of(places, (new, keys.size()[1] - shared));
        let positions = (&queries.gather(1, places, false), keys);
        Self {
            index: (places + rows).reshape([-1]),
            size: (batch, places.size()[1]),
            frame: Frame::new(&attention, positions, shared, setting, rotary),
        }
    }

    /// Of `x` [B, T, hidden], [B, W, hidden].
    pub(super) fn select(&self, x: &Tensor) -> Tensor {
        let (batch, wanted) = self.size;
        let width = x.size()[2];
        x.reshape([-1, width]).index_select(0, &self.index).view([batch, wanted, width])
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.size.1 == 0
    }
}
