//! Where the tokens of a pass stand, and what they see: worked out once for all blocks.

use tch::{Kind, Tensor};

use super::patterns::{Attention, Patterns, Setting};
use super::rope::{RotaryEmbedding, Rotation};

/// The tokens of one pass over a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass<'a> {
    /// What they see.
    pub(super) attention: &'a Attention,
    /// Positions of the T new ones, i64 [B, T].
    pub(super) queries: &'a Tensor,
    /// Of those before them, too, i64 [B, S].
    pub(super) keys: &'a Tensor,
    /// So many of S, the first, are those of a shared prefix.
    pub(super) shared: i64,
    /// What they are computed with.
    pub(super) setting: Setting<'a>,
    /// How they are rotated.
    pub(super) rotary: &'a RotaryEmbedding,
}

impl Pass<'_> {
    /// For all of its tokens.
    pub(super) fn frame(self) -> Frame {
        Frame {
            rotation: self.rotary.at(self.queries, self.setting.kind),
            patterns: Patterns::new(self.attention, (self.queries, self.keys), self.shared, self.setting),
        }
    }

    /// For those at `places` in their rows, i64 [B, W].
    pub(super) fn wanted(self, places: &Tensor) -> Wanted {
        let (batch, new) = (self.queries.size()[0], self.queries.size()[1]);
        let count = places.size()[1];
        let rows = Tensor::arange(batch, (Kind::Int64, places.device())).unsqueeze(1) * new;
        let frame = (count > 0).then(|| {
            let attention = self.attention.at(places, (new, self.keys.size()[1] - self.shared));
            let queries = self.queries.gather(1, places, false);
            Pass { attention: &attention, queries: &queries, ..self }.frame()
        });
        Wanted { index: (places + rows).reshape([-1]), size: [batch, count], frame }
    }
}

/// What all blocks share in one pass over a batch: where its tokens stand and what they see.
#[derive(Debug)]
pub struct Frame {
    pub(super) rotation: Rotation,
    pub(super) patterns: Patterns,
}

/// Tokens of a batch whose hidden states are wanted. Of the others nothing is needed after the last block's keys and values.
#[derive(Debug)]
pub(super) struct Wanted {
    /// i64 [B · W], places in the flattened batch.
    index: Tensor,
    /// B and W.
    size: [i64; 2],
    /// Of their queries; `None` where there are none.
    pub(super) frame: Option<Frame>,
}

impl Wanted {
    /// Of `x` [B, T, hidden], [B, W, hidden].
    pub(super) fn select(&self, x: &Tensor) -> Tensor {
        let [batch, count] = self.size;
        let width = x.size()[2];
        x.reshape([-1, width]).index_select(0, &self.index).view([batch, count, width])
    }
}
