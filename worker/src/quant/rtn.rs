//! Round to nearest, as llm-compressor 0.14 does it with its default observer (`memoryless_minmax`): see
//! [`qpipe_kernels::symmetric`]. Pure: a matrix in, codes and scales out, the same bytes on every device.

use qpipe_kernels::symmetric;
use qpipe_nodes::kinds;
use qpipe_nodes::scheme::Scheme;
use serde_json::{Value, json};
use tch::Tensor;

use super::error::QuantizeError;
use super::layers::{Layer, check_finite};
use super::method::{Block, DYNAMIC_ACTIVATIONS, FLOAT_ACTIVATIONS, Method, Quantized};
use crate::context::Facts;
use crate::model::decoder::HEAD;
use crate::model::formats::compressed_tensors::{self, StoredScheme};

/// The method `rtn`: all linear layers of the blocks rounded, stored as compressed-tensors.
#[derive(Debug)]
pub(super) struct Rtn {
    rounding: Rounding,
    scheme: Scheme,
    group_size: Option<u32>,
}

impl Rtn {
    pub(super) fn new(options: &kinds::Rtn) -> Self {
        let rounding = match options.group() {
            None => Rounding::Channel8,
            Some(group) => Rounding::Group4 { group: i64::from(group) },
        };
        Self { rounding, scheme: options.scheme, group_size: options.group() }
    }
}

impl Method for Rtn {
    fn check(&self, layer: &Layer) -> Result<(), QuantizeError> {
        self.rounding.check(layer)
    }

    fn quantize(&mut self, block: Block) -> Result<Quantized, QuantizeError> {
        let mut quantized = Quantized::default();
        for linear in block.linears {
            let rounded = self.rounding.round(&linear.layer.weight, &linear.weight)?;
            let (stored, name) = (self.rounding.stored(), &linear.layer.name);
            quantized.tensors.extend(compressed_tensors::store(name, stored, &rounded.codes, rounded.scale)?);
        }
        Ok(quantized)
    }

    fn config(&self) -> Value {
        compressed_tensors::describe(self.rounding.stored(), &[HEAD])
    }

    fn facts(&self) -> Facts {
        Facts::from([
            ("scheme".to_owned(), json!(self.scheme)),
            ("group_size".to_owned(), json!(self.group_size)),
            ("rounding".to_owned(), json!("nearest, half to even")),
            ("scale".to_owned(), json!(self.rounding.scale_rule())),
            ("activations".to_owned(), json!(self.rounding.activation_rule())),
        ])
    }
}

/// What is rounded to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To 8 bits, one scale an output channel.
    Channel8,
    /// To 4 bits, one scale for `group` consecutive input channels.
    Group4 {
        /// At least 1.
        group: i64,
    },
}

/// The codes and scales of one weight.
#[derive(Debug)]
pub struct Rounded {
    /// i8 [N, K].
    pub codes: Tensor,
    /// In the weight's type: [N, 1], or [N, K/group].
    pub scale: Tensor,
}

impl Rounding {
    /// Rounds `weight` [N, K], floating point, called `tensor` in messages.
    ///
    /// # Errors
    ///
    /// Values that are not finite, and groups that do not divide K.
    pub fn round(&self, tensor: &str, weight: &Tensor) -> Result<Rounded, QuantizeError> {
        let (out_features, in_features) = weight.size2()?;
        self.check_groups(tensor, in_features)?;
        check_finite(tensor, weight)?;
        let groups = self.groups(in_features);
        let grouped = weight.f_reshape([out_features, groups, in_features / groups])?;
        let scale = symmetric::scales(&grouped, self.bits());
        let codes = symmetric::codes(&grouped, &scale, self.bits());
        Ok(Rounded {
            codes: codes.f_view([out_features, in_features])?,
            scale: scale.f_view([out_features, groups])?,
        })
    }

    /// An error if `layer` cannot be rounded, told before any work is done.
    pub(super) fn check(&self, layer: &Layer) -> Result<(), QuantizeError> {
        self.check_groups(&layer.weight, layer.in_features)
    }

    fn check_groups(&self, tensor: &str, in_features: i64) -> Result<(), QuantizeError> {
        match *self {
            Self::Group4 { group } if in_features % group != 0 => Err(QuantizeError::Group {
                tensor: tensor.to_owned(),
                in_features,
                group,
                fitting: Vec::new(),
            }),
            _ => Ok(()),
        }
    }

    /// Scales of an output channel of `in_features` weights.
    fn groups(&self, in_features: i64) -> i64 {
        match *self {
            Self::Channel8 => 1,
            Self::Group4 { group } => in_features / group,
        }
    }

    /// Input channels that share a scale; `None`: all of an output channel.
    pub(super) fn group(&self) -> Option<i64> {
        match *self {
            Self::Channel8 => None,
            Self::Group4 { group } => Some(group),
        }
    }

    /// Bits of a code.
    pub(super) fn bits(&self) -> u32 {
        match self {
            Self::Channel8 => 8,
            Self::Group4 { .. } => 4,
        }
    }

    /// How the result is stored.
    pub fn stored(&self) -> StoredScheme {
        match *self {
            Self::Channel8 => StoredScheme::W8A8,
            Self::Group4 { group } => StoredScheme::WeightOnly { bits: 4, group: Some(group), asym: false },
        }
    }

    /// What becomes of activations, for the record.
    pub(super) fn activation_rule(&self) -> &'static str {
        match self {
            Self::Channel8 => DYNAMIC_ACTIVATIONS,
            Self::Group4 { .. } => FLOAT_ACTIVATIONS,
        }
    }

    /// The scale's definition, for the record.
    pub(super) fn scale_rule(&self) -> &'static str {
        match self {
            Self::Channel8 => "largest magnitude of the channel / 127.5, in the weights' type",
            Self::Group4 { .. } => "largest magnitude of the group / 7.5, in the weights' type",
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;
    use tch::{Device, Kind};

    use super::*;

    fn matrix(rows: i64, columns: i64, seed: u64, kind: Kind) -> Tensor {
        let values: Vec<f32> = (0..(rows * columns) as u64)
            .map(|i| ((i + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 23) as f32 - 1.0)
            .collect();
        Tensor::from_slice(&values).view([rows, columns]).to_kind(kind)
    }

    proptest! {
        #[test]
        fn no_weight_moves_by_more_than_half_a_step(
            rows in 1_i64..6, groups in 1_i64..5, seed in 0_u64..1_000_000, is_eight in any::<bool>(),
        ) {
            let weight = matrix(rows, groups * 32, seed, Kind::Float);
            let rounding = if is_eight { Rounding::Channel8 } else { Rounding::Group4 { group: 32 } };
            let rounded = rounding.round("w", &weight).unwrap();
            prop_assert_eq!(rounded.codes.size(), weight.size());
            let columns = if is_eight { 1 } else { groups };
            prop_assert_eq!(rounded.scale.size(), [rows, columns]);
            let shape = [rows, columns, weight.size()[1] / columns];
            let scale = rounded.scale.view([rows, columns, 1]);
            let steps = (rounded.codes.view(shape) - weight.view(shape) / scale).abs().max();
            prop_assert!(f64::try_from(steps).unwrap() <= 0.5 + 1e-4);
        }
    }

    #[test]
    fn each_group_has_the_scale_of_its_own_largest_magnitude() {
        let mut weight = Tensor::zeros([1, 64], (Kind::Float, Device::Cpu));
        let _ = weight.narrow(1, 5, 1).fill_(3.0);
        let _ = weight.narrow(1, 40, 1).fill_(-15.0);
        weight = weight.contiguous();
        let rounded = Rounding::Group4 { group: 32 }.round("w", &weight).unwrap();
        let scales: Vec<f32> = Vec::try_from(rounded.scale.view([-1])).unwrap();
        assert_eq!(scales, [3.0 / 7.5, 2.0]);
        assert_eq!(rounded.codes.int64_value(&[0, 40]), -8);
    }

    #[test]
    fn a_value_that_is_not_finite_names_the_tensor() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let weight = matrix(2, 32, 1, Kind::BFloat16);
            let _ = weight.narrow(1, 3, 1).fill_(value);
            let error = Rounding::Channel8.round("model.x.weight", &weight).unwrap_err();
            assert_eq!(error.to_string(), "tensor `model.x.weight` has values that are not finite: 2");
        }
    }

    #[test]
    fn a_group_that_does_not_fit_names_the_tensor_and_both_numbers() {
        let error = Rounding::Group4 { group: 128 }.round("w", &matrix(2, 96, 1, Kind::Float)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor `w` has 96 input channels, which are not a multiple of the group size 128"
        );
    }
}
