//! A linear layer in few bits, multiplied by the kernel that serves it best.

use qpipe_kernels::{Input, PreparedLinear, QuantizedWeight, Scheme};
use tch::{Kind, Tensor};

use crate::model::checkpoint::Checkpoint;
use crate::model::error::ModelError;
use crate::model::linear::{Dense, Linear, LinearSpec, LoadOptions};

/// See the module's documentation.
#[derive(Debug)]
pub struct Quantized {
    prepared: Box<dyn PreparedLinear>,
    scheme: Scheme,
    multiplied_in: Kind,
    out_features: i64,
    in_features: i64,
}

impl Quantized {
    /// Hands `weight`, which is the layer `spec` of `checkpoint`, to a kernel.
    pub fn prepare(
        checkpoint: &Checkpoint,
        spec: &LinearSpec<'_>,
        weight: QuantizedWeight,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let wrong =
            |problem: String| ModelError::Quantization { file: checkpoint.config.file.clone(), problem };
        if options.trainable {
            return Err(wrong(format!(
                "`{}` is quantized ({}) and cannot be trained",
                spec.name,
                weight.scheme()
            )));
        }
        let kind = options.kind(checkpoint)?;
        let prepared = qpipe_kernels::prepare(&weight, options.device, kind)
            .map_err(|error| wrong(format!("`{}`: {error}", spec.name)))?;
        Ok(Self {
            prepared,
            scheme: weight.scheme(),
            multiplied_in: weight.multiplied_in(kind),
            out_features: spec.out_features,
            in_features: spec.in_features,
        })
    }
}

impl Linear for Quantized {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.prepared.forward(x)
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        self.prepared.forward_input(input)
    }

    fn out_features(&self) -> i64 {
        self.out_features
    }

    fn in_features(&self) -> i64 {
        self.in_features
    }

    fn bytes(&self) -> u64 {
        self.prepared.bytes()
    }

    fn scheme(&self) -> String {
        self.scheme.to_string()
    }

    fn multiplied_in(&self) -> Kind {
        self.multiplied_in
    }

    fn mixes_tokens(&self) -> bool {
        self.scheme == Scheme::LlmInt8
    }

    fn dense(&self) -> Option<&Dense> {
        None
    }
}
