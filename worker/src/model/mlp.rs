//! The gated feed-forward network (SwiGLU; Shazeer, 2020, arXiv 2002.05202).

use qpipe_kernels::{Input, silu_multiply};
use tch::Tensor;

use super::block::Observer;
use super::checkpoint::Checkpoint;
use super::error::ModelError;
use super::formats;
use super::linear::{Linear, LinearSpec, LoadOptions};

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
    /// The network called `name` (`model.layers.0.mlp`).
    pub fn load(checkpoint: &Checkpoint, name: &str, options: &LoadOptions) -> Result<Self, ModelError> {
        let config = &checkpoint.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let load = |part: &str, in_features, out_features| {
            let name = format!("{name}.{part}");
            let spec = LinearSpec { name: &name, in_features, out_features, bias: config.mlp_bias };
            formats::load_linear(checkpoint, &spec, options)
        };
        Ok(Self {
            gate: load("gate_proj", hidden, inner)?,
            up: load("up_proj", hidden, inner)?,
            down: load("down_proj", inner, hidden)?,
        })
    }

    /// `x` [B, T, hidden], of the same shape. An observer is shown `x`, which two linear layers share, and what the
    /// last one is given.
    pub(super) fn forward(&self, x: Input<'_>, mut observe: Option<&mut Observer<'_>>) -> Tensor {
        if let Some(observe) = &mut observe {
            observe("mlp.gate_proj", x.tensor());
        }
        let (gate, up) = (self.gate.forward_input(&x), self.up.forward_input(&x));
        drop(x);
        let gated = silu_multiply(gate, &up).expect("both have one shape and type");
        if let Some(observe) = observe {
            observe("mlp.down_proj", &gated);
        }
        self.down.forward(&gated)
    }
}
