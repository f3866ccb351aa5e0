//! Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685): W stays as it is, (alpha / rank) B A is added and
//! trained.

use qpipe_nodes::kinds::Lora;
use tch::{Device, Kind, Tensor};

use super::error::SftError;
use super::optimizer::Parameter;
use crate::data::random::Random;
use crate::model::{Decoder, Dense, Linear};

/// Stream number of the first weights, see [`Random::new`].
const WEIGHTS_STREAM: u64 = 2 << 32;

/// The suffix of A's name behind a layer's, as peft writes it.
pub const A_SUFFIX: &str = ".lora_A.weight";
/// The suffix of B's name.
pub const B_SUFFIX: &str = ".lora_B.weight";

/// y = W x + b + scale · B A dropout(x), for training.
#[derive(Debug)]
struct LoraLinear {
    base: Dense,
    /// float32 [rank, K].
    a: Tensor,
    /// float32 [N, rank].
    b: Tensor,
    scale: f64,
    dropout: f64,
}

impl Linear for LoraLinear {
    fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        let dropped = if self.dropout > 0.0 { x.dropout(self.dropout, true) } else { x.shallow_clone() };
        let low = dropped.linear::<Tensor>(&self.a.to_kind(kind), None);
        self.base.forward(x) + low.linear::<Tensor>(&self.b.to_kind(kind), None) * self.scale
    }

    fn out_features(&self) -> i64 {
        self.base.out_features()
    }

    fn in_features(&self) -> i64 {
        self.base.in_features()
    }

    fn bytes(&self) -> u64 {
        self.base.bytes() + 4 * (self.a.numel() + self.b.numel()) as u64
    }

    fn multiplied_in(&self) -> Kind {
        self.base.multiplied_in()
    }

    fn dense(&self) -> Option<&Dense> {
        None
    }
}

/// Puts an adapter on every linear layer of `decoder` that `lora` names and returns what is to be trained, A and
/// B of each layer in the model's order. At first B is zero, so the model computes what it did before.
///
/// # Errors
///
/// [`SftError::NoTarget`] where no layer has one of the names.
pub fn attach(
    decoder: &mut Decoder,
    lora: &Lora,
    seed: u64,
    device: Device,
) -> Result<Vec<Parameter>, SftError> {
    let mut random = Random::new(seed, WEIGHTS_STREAM);
    let mut parameters = Vec::new();
    let rank = i64::from(lora.rank);
    decoder.for_each_linear(&mut |name, linear| {
        let last = name.rsplit('.').next().unwrap_or(name);
        if !lora.targets.iter().any(|target| target == last) {
            return;
        }
        let Some(dense) = linear.dense() else { return };
        let (inputs, outputs) = (dense.in_features(), dense.out_features());
        let a = kaiming_uniform(&mut random, rank, inputs).to_device(device);
        let b = Tensor::zeros([outputs, rank], (Kind::Float, device));
        let a = Parameter::new(format!("{name}{A_SUFFIX}"), a);
        let b = Parameter::new(format!("{name}{B_SUFFIX}"), b);
        *linear = Box::new(LoraLinear {
            base: Dense::new(
                dense.weight.shallow_clone(),
                dense.bias.as_ref().map(Tensor::shallow_clone),
                dense.multiplier,
            ),
            a: a.live.shallow_clone(),
            b: b.live.shallow_clone(),
            scale: lora.alpha / f64::from(lora.rank),
            dropout: lora.dropout,
        });
        parameters.extend([a, b]);
    });
    if parameters.is_empty() {
        Err(SftError::NoTarget { targets: lora.targets.clone() })
    } else {
        Ok(parameters)
    }
}

/// Kaiming's uniform distribution with a = √5 (what `torch.nn.Linear` and peft begin with): within ±1/√inputs.
fn kaiming_uniform(random: &mut Random, outputs: i64, inputs: i64) -> Tensor {
    let bound = 1.0 / (inputs as f64).sqrt();
    let values: Vec<f32> = (0..outputs * inputs).map(|_| random.symmetric(bound)).collect();
    Tensor::from_slice(&values).view([outputs, inputs])
}

#[cfg(test)]
mod tests {
    use qpipe_kernels::Multiplier;

    use super::*;

    fn layer(dropout: f64) -> LoraLinear {
        let mut random = Random::new(0, 0);
        LoraLinear {
            base: Dense::new(kaiming_uniform(&mut random, 6, 8), None, Multiplier::Libtorch),
            a: kaiming_uniform(&mut random, 2, 8),
            b: kaiming_uniform(&mut random, 6, 2),
            scale: 2.0,
            dropout,
        }
    }

    #[test]
    fn equals_the_merged_matrix() {
        let layer = layer(0.0);
        let x = kaiming_uniform(&mut Random::new(1, 0), 3, 8);
        let merged = &layer.base.weight + layer.b.matmul(&layer.a) * 2.0;
        assert!(layer.forward(&x).allclose(&x.matmul(&merged.tr()), 1e-5, 1e-6, false));
    }

    #[test]
    fn dropout_touches_the_adapter_only_and_follows_the_seed() {
        let mut layer = layer(0.5);
        let x = Tensor::ones([4, 8], (Kind::Float, Device::Cpu));
        let forward = |layer: &LoraLinear, seed| {
            let _random = crate::torch::seeded(seed);
            layer.forward(&x)
        };
        assert!(forward(&layer, 1).equal(&forward(&layer, 1)));
        assert!(!forward(&layer, 1).equal(&forward(&layer, 2)));
        layer.b = layer.b.zeros_like();
        assert!(forward(&layer, 1).equal(&layer.base.forward(&x)));
    }
}
