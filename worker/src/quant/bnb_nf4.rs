//! The method `bnb-nf4`: NF4 (Dettmers et al., 2023, arXiv 2305.14314) in blocks of 64, the bytes that bitsandbytes
//! 0.50 writes when it quantizes on a CPU, whichever device computes them.
//!
//! Codes and plain scales are bitsandbytes' on every device. Under double quantization its CPU code rounds scales by a
//! table of 65,536 places and its CUDA code to the nearest: 0.07 to 0.3 % of the scales' codes differ by one. Here it is
//! the table.

use qpipe_kernels::nf4::{self, Absmax, NESTED_BLOCK, TABLE};
use qpipe_nodes::kinds;
use serde_json::{Value, json};
use tch::{Device, Kind, TchError, Tensor};

use super::error::QuantizeError;
use super::layers::Layer;
use super::method::{Block, FLOAT_ACTIVATIONS, Method, Quantized};
use crate::context::Facts;
use crate::model::formats::bitsandbytes;
use crate::model::formats::bitsandbytes::nf4::BLOCK;
use crate::torch;

/// Kept from 0 in denominators, and in the scale of a short last block.
const LEAST_MAGNITUDE: f64 = 1e-38;
/// Places in the table by which scales are rounded.
const PLACES: usize = 1 << 16;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct BnbNf4 {
    double_quant: bool,
    compute: Kind,
}

impl BnbNf4 {
    pub(super) fn new(options: &kinds::BnbNf4) -> Self {
        Self { double_quant: options.double_quant, compute: torch::kind_of(options.compute_dtype) }
    }
}

impl Method for BnbNf4 {
    fn check(&self, layer: &Layer) -> Result<(), QuantizeError> {
        if layer.kind == Kind::Double {
            let tensor = layer.weight.clone();
            return Err(QuantizeError::Type { tensor, kind: layer.kind, method: "bnb-nf4" });
        }
        Ok(())
    }

    fn quantize(&mut self, block: Block) -> Result<Quantized, QuantizeError> {
        let mut quantized = Quantized::default();
        for linear in block.linears {
            let rounded = round(&linear.weight)?;
            let absmax =
                if self.double_quant { nest(&rounded.absmax)? } else { Absmax::Plain(rounded.absmax) };
            let layer = &linear.layer;
            if matches!(absmax, Absmax::Nested { offset, .. } if !offset.is_finite()) {
                return Err(QuantizeError::MeanBeyondFloat32 { tensor: layer.weight.clone() });
            }
            let shape = [layer.out_features, layer.in_features];
            let tensors = bitsandbytes::nf4::store(&layer.name, shape, layer.kind, &rounded.packed, &absmax)?;
            quantized.tensors.extend(tensors);
        }
        Ok(quantized)
    }

    fn config(&self) -> Value {
        bitsandbytes::describe_nf4(self.double_quant, self.compute)
    }

    fn facts(&self) -> Facts {
        let scale = if self.double_quant {
            "largest magnitude of the block, less the mean of all, in 8 bits of a dynamic map, 256 with one float32"
        } else {
            "largest magnitude of the block, in float32"
        };
        Facts::from([
            ("scheme".to_owned(), json!("NF4")),
            ("block_size".to_owned(), json!(BLOCK)),
            ("double_quant".to_owned(), json!(self.double_quant)),
            ("compute_dtype".to_owned(), json!(torch::kind_name(self.compute))),
            ("rounding".to_owned(), json!("to the nearest of NF4's 16 values, the lower of two")),
            ("scale".to_owned(), json!(scale)),
            ("activations".to_owned(), json!(FLOAT_ACTIVATIONS)),
        ])
    }
}

/// The codes of one weight.
#[derive(Debug)]
pub struct Rounded {
    /// u8 [⌈N·K/2⌉], see [`mod@nf4`].
    pub packed: Tensor,
    /// f32 [⌈N·K/64⌉]: the largest magnitude of each block.
    pub absmax: Tensor,
}

/// Rounds `weight`, floating point of any shape and finite.
pub fn round(weight: &Tensor) -> Result<Rounded, TchError> {
    let flat = weight.f_reshape([-1])?.f_to_kind(Kind::Float)?;
    let count = flat.size1()?;
    let whole = count / BLOCK;
    let blocks = flat.f_narrow(0, 0, whole * BLOCK)?.f_view([whole, BLOCK])?;
    let mut absmax = blocks.f_abs()?.f_amax([-1].as_slice(), false)?;
    // Times the reciprocal, not divided, which rounds differently; a short last block is divided.
    let factor = absmax.f_clamp_min(LEAST_MAGNITUDE)?.f_reciprocal()?;
    let mut relative = blocks.f_mul(&factor.f_unsqueeze(1)?)?.f_view([-1])?;
    if count > whole * BLOCK {
        let rest = flat.f_narrow(0, whole * BLOCK, count - whole * BLOCK)?;
        let largest = rest.f_abs()?.f_amax([0].as_slice(), true)?.f_clamp_min(LEAST_MAGNITUDE)?;
        relative = Tensor::f_cat(&[relative, rest.f_div(&largest)?], 0)?;
        absmax = Tensor::f_cat(&[absmax, largest], 0)?;
    }
    let codes = relative.f_clamp_(-1.0, 1.0)?.f_bucketize(&middles(weight.device())?, true, false)?;
    Ok(Rounded { packed: nf4::pack(&codes.f_to_kind(Kind::Uint8)?)?, absmax })
}

/// The middles between neighbours in [`TABLE`], f32 `[15]`. What lies on one goes down.
fn middles(device: Device) -> Result<Tensor, TchError> {
    let middles: Vec<f32> = TABLE.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    Tensor::from_slice(&middles).f_to_device(device)
}

/// Double quantization: magnitudes, f32 `[B]`, in 8 bits, on the CPU wherever they are.
pub fn nest(absmax: &Tensor) -> Result<Absmax, TchError> {
    let absmax = absmax.f_to_device(Device::Cpu)?;
    // libtorch's mean, to the last bit.
    let offset = absmax.f_mean(Kind::Float)?;
    let values = Vec::<f32>::try_from(absmax.f_sub(&offset)?)?;
    let map = dynamic_map()?;
    let nearest = nearest(&Vec::<f32>::try_from(&map)?);
    let mut codes = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len().div_ceil(NESTED_BLOCK as usize));
    for block in values.chunks(NESTED_BLOCK as usize) {
        let largest = block.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        scales.push(largest);
        let factor = 1.0 / largest;
        codes.extend(block.iter().map(|value| {
            if largest == 0.0 {
                return 0;
            }
            let relative = (value * factor).clamp(-1.0, 1.0);
            nearest[((relative + 1.0) * 0.5 * (PLACES - 1) as f32 + 0.5) as usize]
        }));
    }
    Ok(Absmax::Nested {
        code: Tensor::from_slice(&codes),
        map,
        scale: Tensor::from_slice(&scales),
        offset: f32::try_from(offset)?,
    })
}

/// For evenly spaced places from -1 to 1, the code of the nearest value of `map`, the lower of two.
fn nearest(map: &[f32]) -> Vec<u8> {
    let middles: Vec<f32> = map.windows(2).map(|pair| 0.5 * (pair[0] + pair[1])).collect();
    let mut code = 0;
    let places = (0..PLACES).map(|place| {
        let value = -1.0 + (2.0 * place as f32) / (PLACES - 1) as f32;
        while middles.get(code).is_some_and(|middle| *middle < value) {
            code += 1;
        }
        code as u8
    });
    places.collect()
}

/// bitsandbytes' signed dynamic map (`create_dynamic_map`; Dettmers, 2015, arXiv 1511.04561), f32 `[256]`, sorted: for each
/// of seven powers of ten twice as many values as for the one before, both signs, 0 and 1.
///
/// libtorch's `linspace` rounds as the processor's vectors are wide; this is the map of bitsandbytes on this machine.
fn dynamic_map() -> Result<Tensor, TchError> {
    let mut parts = vec![Tensor::from_slice(&[0.0_f32, 1.0])];
    for (doublings, power) in [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0].into_iter().enumerate() {
        let steps = 1 << doublings;
        let edges = Tensor::f_linspace(0.1, 1.0, steps + 1, (Kind::Float, Device::Cpu))?;
        let middles = (edges.f_narrow(0, 0, steps)? + edges.f_narrow(0, 1, steps)?).f_div_scalar(2.0)?;
        let values = middles.f_mul_scalar(power)?;
        parts.push(values.f_neg()?);
        parts.push(values);
    }
    Ok(Tensor::f_cat(&parts, 0)?.f_sort(0, false)?.0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn codes(rounded: &Rounded, count: i64) -> Vec<u8> {
        Vec::try_from(nf4::unpack(&rounded.packed, count).unwrap()).unwrap()
    }

    #[test]
    fn every_value_of_the_table_is_its_own_code_and_middles_go_down() {
        let mut values = TABLE.to_vec();
        values.extend(TABLE.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0));
        values.resize(64, 0.0);
        let rounded = round(&Tensor::from_slice(&values)).unwrap();
        let codes = codes(&rounded, 64);
        assert_eq!(codes[..16], (0..16).collect::<Vec<u8>>());
        assert_eq!(codes[16..31], (0..15).collect::<Vec<u8>>());
        assert_eq!(Vec::<f32>::try_from(rounded.absmax).unwrap(), [1.0]);
    }

    #[test]
    fn blocks_cross_rows_and_the_last_may_be_short() {
        let mut values = vec![0.5_f32; 3 * 33];
        values[40] = -8.0;
        values[98] = 2.0;
        let rounded = round(&Tensor::from_slice(&values).view([3, 33])).unwrap();
        assert_eq!(rounded.packed.size(), [50]);
        assert_eq!(Vec::<f32>::try_from(&rounded.absmax).unwrap(), [8.0, 2.0]);
        let codes = codes(&rounded, 99);
        assert_eq!((codes[0], codes[40], codes[64], codes[98]), (8, 0, 10, 15));
    }

    #[test]
    fn blocks_of_zeros_have_the_code_of_zero() {
        let rounded = round(&Tensor::zeros([70], (Kind::BFloat16, Device::Cpu))).unwrap();
        assert_eq!(codes(&rounded, 70), [7; 70]);
        // bitsandbytes stores the least magnitude for a short last block, and 0 for others.
        assert_eq!(Vec::<f32>::try_from(rounded.absmax).unwrap(), [0.0, LEAST_MAGNITUDE as f32]);
    }

    #[test]
    fn the_dynamic_map_is_symmetric_but_for_its_one() {
        let map = Vec::<f32>::try_from(dynamic_map().unwrap()).unwrap();
        assert_eq!((map.len(), map[127], map[255]), (256, 0.0, 1.0));
        assert!(map.is_sorted());
        for place in 0..127 {
            assert_eq!(map[place], -map[254 - place]);
        }
    }

    #[test]
    fn magnitudes_that_are_all_equal_survive_double_quantization() {
        let absmax = Tensor::full([300], 0.25, (Kind::Float, Device::Cpu));
        let nested = nest(&absmax).unwrap();
        assert!(nested.values(0, 300).unwrap().equal(&absmax));
        assert!(nested.is_nested());
    }

    #[test]
    fn double_quantization_moves_no_magnitude_far() {
        let _guard = tch::no_grad_guard();
        let _random = crate::torch::seeded(5);
        let absmax = Tensor::rand([1000], (Kind::Float, Device::Cpu)) + 0.5;
        let values = nest(&absmax).unwrap().values(0, 1000).unwrap();
        // The map's widest step is 0.0141, its values are relative to the furthest from the mean.
        let furthest = f64::try_from((&absmax - absmax.mean(Kind::Float)).abs().max()).unwrap();
        let difference = f64::try_from((values - absmax).abs().max()).unwrap();
        assert!(difference <= furthest * 0.0141 / 2.0 + 1e-4, "{difference}");
    }
}
