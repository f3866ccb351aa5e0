//! The method `bnb-int8`: the weights of LLM.int8() (Dettmers et al., 2022, arXiv 2208.07339), the bytes that
//! bitsandbytes 0.50 writes when it quantizes on a CPU. Its CUDA kernel divides approximately, and some codes are
//! one off there.
//!
//! What activations do at run time is [`qpipe_kernels::llm_int8`]'s.

use qpipe_kernels::llm_int8;
use qpipe_nodes::kinds;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::error::QuantizeError;
use super::layers::Layer;
use super::method::{Block, Method, Quantized};
use crate::context::Facts;
use crate::finite::count_not_finite;
use crate::model::formats::bitsandbytes;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct BnbInt8 {
    threshold: f64,
}

impl BnbInt8 {
    pub(super) fn new(options: &kinds::BnbInt8) -> Self {
        Self { threshold: options.threshold }
    }
}

impl Method for BnbInt8 {
    fn check(&self, _layer: &Layer) -> Result<(), QuantizeError> {
        Ok(())
    }

    fn quantize(&mut self, block: Block) -> Result<Quantized, QuantizeError> {
        let mut quantized = Quantized::default();
        for linear in block.linears {
            let rounded = round(&linear.layer.weight, &linear.weight)?;
            quantized.tensors.extend(bitsandbytes::int8::store(
                &linear.layer.name,
                rounded.codes,
                rounded.absmax,
            )?);
        }
        Ok(quantized)
    }

    fn config(&self) -> Value {
        bitsandbytes::describe_int8(self.threshold)
    }

    fn facts(&self) -> Facts {
        Facts::from([
            ("scheme".to_owned(), json!("LLM.int8()")),
            ("rounding".to_owned(), json!("nearest, half to even, of the weights in float16")),
            ("scale".to_owned(), json!("largest magnitude of the channel / 127")),
            ("threshold".to_owned(), json!(self.threshold)),
            (
                "activations".to_owned(),
                json!(
                    "int8 by token, largest magnitude / 127; outlier channels in floating point, taken per sequence in evaluations"
                ),
            ),
        ])
    }
}

/// The codes of one weight.
#[derive(Debug)]
pub struct Rounded {
    /// i8 [N, K].
    pub codes: Tensor,
    /// f32 `[N]`: the largest magnitude of each output channel.
    pub absmax: Tensor,
}

/// Rounds `weight` [N, K], floating point, called `tensor` in messages.
///
/// # Errors
///
/// Values beyond the range of float16.
pub fn round(tensor: &str, weight: &Tensor) -> Result<Rounded, QuantizeError> {
    let weight = weight.f_to_kind(Kind::Half)?;
    let count = count_not_finite(&weight)?;
    if count > 0 {
        return Err(QuantizeError::BeyondFloat16 { tensor: tensor.to_owned(), count });
    }
    let rows = llm_int8::quantize_rows(&weight, 0.0)?;
    Ok(Rounded { codes: rows.codes, absmax: rows.absmax.f_view([-1])? })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_scaled_by_its_largest_magnitude_in_float16() {
        // 3.0003 is 3 in float16.
        let weight = Tensor::from_slice(&[3.0003_f32, -1.5, 0.0, 0.0, 0.0, 0.0]).view([2, 3]);
        let rounded = round("w", &weight).unwrap();
        assert_eq!(Vec::<f32>::try_from(rounded.absmax).unwrap(), [3.0, 0.0]);
        // 63.5 goes to the even 64.
        assert_eq!(Vec::<i8>::try_from(rounded.codes.view([-1])).unwrap(), [127, -64, 0, 0, 0, 0]);
    }

    #[test]
    fn weights_beyond_float16_name_the_tensor() {
        let weight = Tensor::from_slice(&[1.0_f32, 7e4, -1e5]).view([1, 3]);
        let error = round("model.x.weight", &weight).unwrap_err();
        assert_eq!(error.to_string(), "tensor `model.x.weight` has values beyond the range of float16: 2");
    }
}
