//! Linear layers: what the decoder needs of them, and the plain one.

use std::fmt::Debug;

use qpipe_kernels::{Input, Multiplier};
use tch::{Device, Kind, Tensor};

use super::checkpoint::Checkpoint;
use super::error::ModelError;

/// How to load a model.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Where the weights go.
    pub device: Device,
    /// The floating-point type to compute in. `None`: config.json's, else [`Checkpoint::float_kind`].
    pub dtype: Option<Kind>,
    /// The weights are copied out of the memory map and require gradients. Otherwise, on a CPU and with an
    /// unchanged type, they are views of the map.
    pub trainable: bool,
    /// Who multiplies in floating point.
    pub products: Products,
}

/// Who multiplies in floating point.
#[derive(Clone, Copy, Debug)]
pub struct Products {
    /// By weights.
    pub weights: Multiplier,
    /// In attention. With [`LoadOptions::trainable`] it is libtorch.
    pub attention: Multiplier,
}

impl Products {
    /// libtorch.
    pub const LIBTORCH: Self = Self { weights: Multiplier::Libtorch, attention: Multiplier::Libtorch };
    /// Whoever is fastest here.
    pub const FASTEST: Self = Self { weights: Multiplier::Fastest, attention: Multiplier::Fastest };
}

impl LoadOptions {
    /// For inference, with libtorch's products in floating point.
    pub fn inference(device: Device, dtype: Option<Kind>) -> Self {
        Self { device, dtype, trainable: false, products: Products::LIBTORCH }
    }

    /// The floating-point type that a model of `checkpoint` computes in under these options.
    pub fn kind(&self, checkpoint: &Checkpoint) -> Result<Kind, ModelError> {
        match self.dtype.or(checkpoint.config.dtype) {
            Some(kind) => Ok(kind),
            None => checkpoint.float_kind(),
        }
    }

    /// Who multiplies in attention: gradients flow through libtorch's only.
    pub(super) fn attention(&self) -> Multiplier {
        if self.trainable { Multiplier::Libtorch } else { self.products.attention }
    }

    /// The floating-point tensor `name` of the given shape, as these options ask for it.
    pub fn weight(&self, checkpoint: &Checkpoint, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let weight = checkpoint.float_tensor(name, shape, self.kind(checkpoint)?, self.device)?;
        if !self.trainable {
            return Ok(weight);
        }
        // Not the map's own pages: an optimizer writes to these.
        Ok(weight.f_to_device_(self.device, weight.kind(), false, true)?.f_set_requires_grad(true)?)
    }
}

/// A linear layer of a checkpoint, as config.json describes it.
#[derive(Clone, Copy, Debug)]
pub struct LinearSpec<'a> {
    /// Its full name: `model.layers.0.self_attn.q_proj`.
    pub name: &'a str,
    /// K.
    pub in_features: i64,
    /// N.
    pub out_features: i64,
    /// Whether `NAME.bias` is added.
    pub bias: bool,
}

/// y = x Wᵀ + b, however W is stored. `forward` only reads: several threads call it at one time.
pub trait Linear: Debug {
    /// `x` [..., K] to [..., N], of the same floating-point type.
    fn forward(&self, x: &Tensor) -> Tensor;

    /// The same of what layers share.
    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        self.forward(input.tensor())
    }

    /// N.
    fn out_features(&self) -> i64;

    /// K.
    fn in_features(&self) -> i64;

    /// Bytes of the tensors that it holds.
    fn bytes(&self) -> u64;

    /// How the weight is stored and multiplied: `dense`, `W8A8`, `W4A16 g128`.
    fn scheme(&self) -> String {
        "dense".to_owned()
    }

    /// The type whose products it is multiplied by: int8 where activations are quantized.
    fn multiplied_in(&self) -> Kind;

    /// Whether what comes out for a token depends on the others that it is multiplied together with.
    fn mixes_tokens(&self) -> bool {
        false
    }

    /// The floating-point matrix, if it is stored as one.
    fn dense(&self) -> Option<&Dense>;
}

/// A linear layer with a floating-point matrix.
#[derive(Debug)]
pub struct Dense {
    /// [N, K].
    pub weight: Tensor,
    /// `[N]`.
    pub bias: Option<Tensor>,
    /// Who multiplies.
    pub multiplier: Multiplier,
}

impl Dense {
    /// With a weight [N, K] and a bias `[N]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, multiplier: Multiplier) -> Self {
        Self { weight, bias, multiplier }
    }

    /// The layer `spec` of `checkpoint`.
    pub fn load(
        checkpoint: &Checkpoint,
        spec: &LinearSpec<'_>,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let shape = [spec.out_features, spec.in_features];
        let weight = options.weight(checkpoint, &format!("{}.weight", spec.name), &shape)?;
        let bias = if spec.bias {
            Some(options.weight(checkpoint, &format!("{}.bias", spec.name), &shape[..1])?)
        } else {
            None
        };
        Ok(Self::new(weight, bias, options.products.weights))
    }
}

impl Linear for Dense {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_input(&Input::new(x))
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        qpipe_kernels::linear(input, &self.weight, self.bias.as_ref(), self.multiplier)
            .expect("its shape was checked when the layer was loaded")
    }

    fn out_features(&self) -> i64 {
        self.weight.size()[0]
    }

    fn in_features(&self) -> i64 {
        self.weight.size()[1]
    }

    fn bytes(&self) -> u64 {
        tensor_bytes(&self.weight) + self.bias.as_ref().map_or(0, tensor_bytes)
    }

    fn multiplied_in(&self) -> Kind {
        self.weight.kind()
    }

    fn dense(&self) -> Option<&Dense> {
        Some(self)
    }
}

/// Bytes of a tensor's elements.
pub fn tensor_bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}
