//! A quantized linear layer.

use tch::{Device, Kind, Tensor};

use super::check;
use super::codes::Codes;
use super::error::KernelError;
use super::scheme::Scheme;

/// A linear layer with few bits a weight, as checkpoints store it.
#[derive(Debug)]
pub struct QuantizedWeight {
    codes: Codes,
    bias: Option<Tensor>,
    out_features: i64,
    in_features: i64,
    input_order: Option<Tensor>,
}

impl QuantizedWeight {
    /// A layer of `out_features` (N) by `in_features` (K), with a floating-point bias `[N]`.
    ///
    /// # Errors
    ///
    /// A tensor of another type or shape than [`Codes`] says, or a group that does not divide K.
    pub fn new(
        codes: Codes,
        bias: Option<Tensor>,
        out_features: i64,
        in_features: i64,
    ) -> Result<Self, KernelError> {
        if out_features < 1 || in_features < 1 {
            return Err(KernelError::Empty { out_features, in_features });
        }
        check::expect_consistent(&codes, out_features, in_features)?;
        if let Some(bias) = &bias {
            check::expect("bias", bias, check::FLOATS, &[out_features])?;
        }
        Ok(Self { codes, bias, out_features, in_features, input_order: None })
    }

    /// The same with its input channels in another order: channel k of the codes is channel `order`\[k\] of the
    /// activations. That is how the scattered groups of GPTQ's `desc_act` come to stand side by side.
    ///
    /// # Errors
    ///
    /// If `order`, i64 `[K]`, is no permutation.
    pub fn with_input_order(mut self, order: Tensor) -> Result<Self, KernelError> {
        let in_features = self.in_features;
        check::expect("order", &order, &[Kind::Int64], &[in_features])?;
        let (sorted, _) = order.f_sort(0, false)?;
        if !sorted.equal(&Tensor::f_arange(in_features, (Kind::Int64, order.device()))?) {
            return Err(KernelError::Order { in_features });
        }
        self.input_order = Some(order);
        Ok(self)
    }

    /// See [`QuantizedWeight::with_input_order`].
    pub fn input_order(&self) -> Option<&Tensor> {
        self.input_order.as_ref()
    }

    /// Codes and scales.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// Where the codes are.
    pub fn device(&self) -> Device {
        self.codes.stored().device()
    }

    /// `[N]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// N.
    pub fn out_features(&self) -> i64 {
        self.out_features
    }

    /// K.
    pub fn in_features(&self) -> i64 {
        self.in_features
    }

    /// The type whose products it is multiplied by where activations are of type `kind`: int8 where they are quantized.
    pub fn multiplied_in(&self, kind: Kind) -> Kind {
        match &self.codes {
            Codes::LlmInt8 { .. }
            | Codes::Int8 { .. }
            | Codes::Int8Static { .. }
            | Codes::Int8Torchao { .. }
            | Codes::Progressive { .. }
            | Codes::Int4A8 { .. } => Kind::Int8,
            Codes::Nf4 { compute, .. } => *compute,
            Codes::Int4 { .. } | Codes::Int4Asym { .. } | Codes::Bits { .. } | Codes::Int8A16 { .. } => kind,
        }
    }

    /// How it is stored and multiplied.
    pub fn scheme(&self) -> Scheme {
        match &self.codes {
            Codes::LlmInt8 { .. } => Scheme::LlmInt8,
            Codes::Nf4 { absmax, block, .. } => Scheme::Nf4 { block: *block, nested: absmax.is_nested() },
            Codes::Int8 { .. } => Scheme::W8A8,
            Codes::Int4 { group, .. } => Scheme::W4A16 { group: *group },
            Codes::Int4Asym { group, .. } => Scheme::W4A16Asym { group: *group },
            Codes::Bits { bits, zero, group, .. } => {
                Scheme::WeightOnly { bits: *bits, group: *group, asym: zero.is_some() }
            }
            Codes::Int8Static { .. } => Scheme::W8A8Static,
            Codes::Int8A16 { .. } => Scheme::W8A16,
            Codes::Int8Torchao { .. } => Scheme::W8A8Torchao,
            Codes::Progressive { group, .. } => Scheme::W4A8 { group: *group },
            Codes::Int4A8 { group, .. } => Scheme::W4A8Float { group: *group },
        }
    }
}
