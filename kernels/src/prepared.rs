//! A weight in a kernel's hands: what holds for all kernels before one of them is asked.

use tch::Tensor;

use crate::input::Input;
use crate::kernel::{Layer, PreparedLinear, bytes_of};

/// Gives a kernel no activations but those that it was prepared for, and their channels in the weight's order.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) layer: Layer,
    /// i64 `[K]`; `None`: as they come.
    pub(crate) order: Option<Tensor>,
    pub(crate) kernel: Box<dyn PreparedLinear>,
}

impl Prepared {
    /// Kernels read memory by these.
    fn expect(&self, input: &Input<'_>) {
        let found = (input.size().last().copied(), input.kind(), input.device());
        let Layer { in_features, kind, device, .. } = self.layer;
        assert_eq!(
            found,
            (Some(in_features), kind, device),
            "activations are not of the layer's width, type and place"
        );
    }
}

impl PreparedLinear for Prepared {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_input(&Input::new(x))
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        self.expect(input);
        match &self.order {
            None => self.kernel.forward_input(input),
            Some(order) => self.kernel.forward(&input.tensor().index_select(-1, order)),
        }
    }

    fn bytes(&self) -> u64 {
        self.kernel.bytes() + bytes_of(&self.order)
    }
}
