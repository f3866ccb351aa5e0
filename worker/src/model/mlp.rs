//! The gated feed-forward network (SwiGLU; Shazeer, 2020, arXiv 2002.05202).

use qpipe_kernels::{Input, silu_multiply};
use tch::Tensor;

use super::block::{Observer, Part};
use super::checkpoint::Checkpoint;
use super::error::ModelError;
use super::linear::{Linear, LoadOptions};

/// down(silu(gate(x)) * up(x)).
#[derive(Debug)]
pub struct Mlp {
    /// `[hidden]` to `[intermediate]`.
    pub gate: Box<dyn Linear>,
    /// `[hidden]` to `[intermediate]`.
    pub up: Box<dyn Linear>,
    /// `[intermediate]` to `[hidden]`.
    pub down: Box<dyn Linear>,
}

impl Mlp {
    /// The network of block number `layer`.
    pub fn load(checkpoint: &Checkpoint, layer: usize, options: &LoadOptions) -> Result<Self, ModelError> {
        let load = |part: Part| part.load(checkpoint, layer, options);
        Ok(Self { gate: load(Part::Gate)?, up: load(Part::Up)?, down: load(Part::Down)? })
    }

    /// `x` [B, T, hidden], of the same shape. An observer is shown `x`, which two linear layers share, and what the
    /// last one is given.
    pub(super) fn forward(&self, x: Input<'_>, mut observe: Option<&mut Observer<'_>>) -> Tensor {
        if let Some(observe) = &mut observe {
            observe(Part::Gate, x.tensor());
        }
        let (gate, up) = (self.gate.forward_input(&x), self.up.forward_input(&x));
        drop(x);
        let gated = silu_multiply(gate, &up).expect("both have one shape and type");
        if let Some(observe) = observe {
            observe(Part::Down, &gated);
        }
        self.down.forward(&gated)
    }
}
