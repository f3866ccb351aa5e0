//! The linear layer in float32 whose weight is only ever multiplied by, as in `evaluate`, where our own product is the fastest.

use qpipe_kernels::{Input, Multiplier, Ordered};
use tch::{Kind, Tensor};

use super::error::ModelError;
use super::linear::{Dense, Linear, tensor_bytes};

/// A [`Dense`] whose matrix stands in the order of our own product, and nowhere else.
#[derive(Debug)]
struct OrderedDense {
    weight: Ordered,
    bias: Option<Tensor>,
}

/// `dense` for those who only multiply by it: in the order of our own product, where its multiplier is that, else as it is.
///
/// # Errors
///
/// Only libtorch's.
pub(super) fn multiplied_only(dense: Dense) -> Result<Box<dyn Linear>, ModelError> {
    let weight = match dense.multiplier {
        Multiplier::Fastest => Ordered::of(&dense.weight)?,
        Multiplier::Libtorch => None,
    };
    Ok(match weight {
        Some(weight) => Box::new(OrderedDense { weight, bias: dense.bias }),
        None => Box::new(dense),
    })
}

impl Linear for OrderedDense {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_input(&Input::new(x))
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        self.weight
            .linear(input, self.bias.as_ref())
            .expect("its shape was checked when the layer was loaded")
    }

    fn out_features(&self) -> i64 {
        self.weight.size().0
    }

    fn in_features(&self) -> i64 {
        self.weight.size().1
    }

    fn bytes(&self) -> u64 {
        self.weight.bytes() + self.bias.as_ref().map_or(0, tensor_bytes)
    }

    fn multiplied_in(&self) -> Kind {
        Kind::Float
    }

    /// Whoever asks wants to read the matrix, or to write it.
    fn dense(&self) -> Option<&Dense> {
        None
    }
}
