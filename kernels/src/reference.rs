//! The definition of every scheme in plain operations: slow, and what the other kernels are compared with.

use tch::{Device, Kind, Tensor};

use crate::input::Input;
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::llm_int8::{self, SUM_SCALE};
use crate::nf4::{self, Absmax};
use crate::packing;
use crate::product::{Multiplier, linear};
use crate::progressive;
use crate::symmetric;
use crate::torchao;
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// Serves every layer.
#[derive(Debug)]
pub struct Reference;

impl Kernel for Reference {
    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let bias = weight
            .bias()
            .map(|bias| bias.f_to_device_(layer.device, Kind::Float, false, false))
            .transpose()?;
        let in_features = weight.in_features();
        Ok(match weight.codes() {
            Codes::LlmInt8 { weight, absmax, threshold } => Box::new(ReferenceLlmInt8 {
                weight: weight.f_to_device(layer.device)?,
                absmax: absmax.f_to_device(layer.device)?,
                threshold: *threshold,
                bias,
            }),
            Codes::Nf4 { packed, absmax, block, compute } => Box::new(ReferenceNf4 {
                packed: packed.f_to_device(layer.device)?,
                absmax: absmax.to_device(layer.device)?,
                block: *block,
                compute: *compute,
                shape: [weight.out_features(), in_features],
                bias,
            }),
            Codes::Int8 { weight, scale } => Box::new(ReferenceW8A8 {
                weight: weight.f_to_device(layer.device)?,
                scale: scale.f_to_device_(layer.device, layer.kind, false, false)?,
                input_scale: None,
                bias,
            }),
            Codes::Int8Static { weight, scale, input_scale } => Box::new(ReferenceW8A8 {
                weight: weight.f_to_device(layer.device)?,
                scale: scale.f_to_device_(layer.device, layer.kind, false, false)?,
                input_scale: Some(input_scale.f_to_device_(layer.device, layer.kind, false, false)?),
                bias,
            }),
            Codes::Int8Torchao { weight, scale } => Box::new(ReferenceTorchao {
                weight: weight.f_to_device(layer.device)?,
                scale: scale.f_to_device(layer.device)?,
                bias,
            }),
            // The int8 weight that it stands for.
            Codes::Progressive { packed, group_scale, group_zero, channel_scale, .. } => {
                let codes = packing::unpack(packed, in_features)?;
                Box::new(ReferenceW8A8 {
                    weight: progressive::expand(&codes, group_scale, group_zero)?
                        .f_to_device(layer.device)?,
                    scale: channel_scale.f_to_device(layer.device)?,
                    input_scale: None,
                    bias,
                })
            }
            Codes::Int4A8 { packed, scale, .. } => Box::new(ReferenceW4A8 {
                codes: packing::unpack(packed, in_features)?.f_to_device(layer.device)?,
                scale: scale.f_to_device_(layer.device, layer.kind, false, false)?,
                bias,
            }),
            Codes::Int4 { packed, scale, group } => Box::new(ReferenceW4A16 {
                packed: packed.f_to_device(layer.device)?,
                scale: scale.f_to_device_(layer.device, layer.kind, false, false)?,
                zero: None,
                group: *group,
                in_features,
                bias,
            }),
            Codes::Bits { .. } | Codes::Int8A16 { .. } => Box::new(ReferenceWeightOnly {
                weight: weight.stored_value(layer.kind)?.f_to_device(layer.device)?,
                bias,
            }),
            Codes::Int4Asym { packed, scale, zero, group } => Box::new(ReferenceW4A16 {
                packed: packed.f_to_device(layer.device)?,
                scale: scale.f_to_device_(layer.device, layer.kind, false, false)?,
                zero: Some(zero.f_to_device(layer.device)?),
                group: *group,
                in_features,
                bias,
            }),
        })
    }
}

/// Codes times codes, summed exactly, then scaled in f32.
#[derive(Debug)]
struct ReferenceW8A8 {
    weight: Tensor,
    scale: Tensor,
    input_scale: Option<Tensor>,
    bias: Option<Tensor>,
}

impl PreparedLinear for ReferenceW8A8 {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x_scale =
            self.input_scale.as_ref().map_or_else(|| symmetric::scales(x, 8), Tensor::shallow_clone);
        let codes = symmetric::codes(x, &x_scale, 8);
        // Products of codes and their sums are integers far below 2^53: f64 holds them exactly.
        let sums = codes.to_kind(Kind::Double).matmul(&self.weight.to_kind(Kind::Double).tr());
        let scale = self.scale.to_kind(Kind::Float).view([-1]);
        with_bias(sums.to_kind(Kind::Float) * x_scale.to_kind(Kind::Float) * scale, &self.bias)
            .to_kind(x.kind())
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.weight, &self.scale].into_iter().chain(&self.bias).chain(&self.input_scale))
    }
}

/// The same with torchao's codes, and with its rounding between the two scales.
#[derive(Debug)]
struct ReferenceTorchao {
    weight: Tensor,
    scale: Tensor,
    bias: Option<Tensor>,
}

impl PreparedLinear for ReferenceTorchao {
    fn forward(&self, x: &Tensor) -> Tensor {
        let quantized = || -> Result<_, tch::TchError> {
            let x_scale = torchao::scales(x)?;
            Ok((torchao::codes(x, &x_scale)?, x_scale))
        };
        let (codes, x_scale) = quantized().expect("activations are floating point");
        let sums = codes.to_kind(Kind::Double).matmul(&self.weight.to_kind(Kind::Double).tr());
        let rounded = (sums.to_kind(Kind::Float) * x_scale).to_kind(x.kind());
        let scale = self.scale.to_kind(Kind::Float).view([-1]);
        with_bias(rounded.to_kind(Kind::Float) * scale, &self.bias).to_kind(x.kind())
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.weight, &self.scale].into_iter().chain(&self.bias))
    }
}

/// Codes times codes, each group summed exactly, then scaled and added in f64.
#[derive(Debug)]
struct ReferenceW4A8 {
    /// i8 [N, K].
    codes: Tensor,
    /// [N, K/g].
    scale: Tensor,
    bias: Option<Tensor>,
}

impl PreparedLinear for ReferenceW4A8 {
    fn forward(&self, x: &Tensor) -> Tensor {
        let (out_features, groups) = self.scale.size2().expect("the shape was checked when it was made");
        let x_scale = symmetric::scales(x, 8);
        let codes = symmetric::codes(x, &x_scale, 8).to_kind(Kind::Double);
        let weight = self.codes.view([out_features, groups, -1]).to_kind(Kind::Double)
            * self.scale.to_kind(Kind::Double).unsqueeze(-1);
        let sums = codes.matmul(&weight.view([out_features, -1]).tr()) * x_scale.to_kind(Kind::Double);
        with_bias(sums.to_kind(Kind::Float), &self.bias).to_kind(x.kind())
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.codes, &self.scale].into_iter().chain(&self.bias))
    }
}

/// The dequantized matrix in the activations' type, as compressed-tensors decompresses it, multiplied as [`dense`] does.
#[derive(Debug)]
struct ReferenceW4A16 {
    packed: Tensor,
    scale: Tensor,
    zero: Option<Tensor>,
    group: i64,
    in_features: i64,
    bias: Option<Tensor>,
}

impl PreparedLinear for ReferenceW4A16 {
    fn forward(&self, x: &Tensor) -> Tensor {
        let codes =
            packing::unpack(&self.packed, self.in_features).expect("the shape was checked when it was made");
        let groups = codes.view([-1, self.in_features / self.group, self.group]);
        let groups = match &self.zero {
            Some(zero) => groups - zero.unsqueeze(-1),
            None => groups,
        };
        let weight = (groups.to_kind(x.kind()) * self.scale.unsqueeze(-1)).view([-1, self.in_features]);
        dense(x, &weight, &self.bias)
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.packed, &self.scale].into_iter().chain(&self.zero).chain(&self.bias))
    }
}

/// The matrix that the codes stand for, multiplied as [`dense`] does.
#[derive(Debug)]
struct ReferenceWeightOnly {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl PreparedLinear for ReferenceWeightOnly {
    fn forward(&self, x: &Tensor) -> Tensor {
        dense(x, &self.weight, &self.bias)
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.weight].into_iter().chain(&self.bias))
    }
}

/// Codes times codes, summed exactly and scaled in f32, beside the outlier columns times the weight that the codes
/// stand for; bitsandbytes rounds both to the activations' type and then adds.
#[derive(Debug)]
struct ReferenceLlmInt8 {
    weight: Tensor,
    absmax: Tensor,
    threshold: f64,
    bias: Option<Tensor>,
}

impl PreparedLinear for ReferenceLlmInt8 {
    fn forward(&self, x: &Tensor) -> Tensor {
        let flat = x.reshape([-1, self.weight.size()[1]]);
        let rows = llm_int8::quantize_rows(&flat, self.threshold).expect("its shape was checked");
        let sums = rows.codes.to_kind(Kind::Double).matmul(&self.weight.to_kind(Kind::Double).tr());
        // In bitsandbytes' order: the next layer makes codes of what comes out, and steps of its last bits.
        let scaled = rows.absmax * &self.absmax * sums.to_kind(Kind::Float) * SUM_SCALE;
        let y = with_bias(scaled, &self.bias).to_kind(x.kind());
        let y = match rows.outliers {
            Some(columns) => {
                let weight = llm_int8::dequantize_columns(&self.weight, &self.absmax, &columns);
                let weight = weight.expect("columns of it").to_kind(x.kind());
                y.addmm(&flat.index_select(1, &columns), &weight.tr())
            }
            None => y,
        };
        let mut shape = x.size();
        shape.pop();
        shape.push(self.weight.size()[0]);
        y.view(shape.as_slice())
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.weight, &self.absmax].into_iter().chain(&self.bias))
    }
}

/// Every code looked up and scaled in f32, the matrix in the type to compute in, multiplied as [`dense`] does.
#[derive(Debug)]
struct ReferenceNf4 {
    packed: Tensor,
    absmax: Absmax,
    block: i64,
    compute: Kind,
    shape: [i64; 2],
    bias: Option<Tensor>,
}

impl PreparedLinear for ReferenceNf4 {
    fn forward(&self, x: &Tensor) -> Tensor {
        let value = nf4::value(&self.packed, &self.absmax, self.block, self.shape.iter().product());
        let value = value.expect("the shape was checked when it was made");
        let weight = value.view(self.shape).to_kind(self.compute);
        dense(&x.to_kind(self.compute), &weight, &self.bias).to_kind(x.kind())
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.packed].into_iter().chain(&self.bias)) + self.absmax.bytes()
    }
}

/// x Wᵀ + b of a matrix in the type of `x`. In bfloat16 on a CPU it is what libtorch makes of such a layer, as those who wrote the formats run it: where
/// a sum lies close to the middle of two numbers, which of them it becomes depends on that build's order of sums. Else in f32, rounded once.
fn dense(x: &Tensor, weight: &Tensor, bias: &Option<Tensor>) -> Tensor {
    let kind = x.kind();
    if kind == Kind::BFloat16 && x.device() == Device::Cpu {
        let bias = bias.as_ref().map(|bias| bias.to_kind(kind));
        return linear(&Input::new(x), &weight.to_kind(kind), bias.as_ref(), Multiplier::Libtorch)
            .expect("the shape was checked when the layer was made");
    }
    let product = x.to_kind(Kind::Float).matmul(&weight.to_kind(Kind::Float).tr());
    with_bias(product, bias).to_kind(kind)
}

fn with_bias(y: Tensor, bias: &Option<Tensor>) -> Tensor {
    match bias {
        Some(bias) => y + bias,
        None => y,
    }
}
