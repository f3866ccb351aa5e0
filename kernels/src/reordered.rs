//! A layer whose weight has its input channels in an order of its own.

use tch::Tensor;

use crate::table::PreparedLinear;
use crate::weight::bytes_of;

/// Puts the activations' channels in the weight's order first.
#[derive(Debug)]
pub(crate) struct Reordered {
    /// i64 `[K]`.
    pub(crate) order: Tensor,
    pub(crate) prepared: Box<dyn PreparedLinear>,
}

impl PreparedLinear for Reordered {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.prepared.forward(&x.index_select(-1, &self.order))
    }

    fn bytes(&self) -> u64 {
        self.prepared.bytes() + bytes_of([&self.order])
    }
}
