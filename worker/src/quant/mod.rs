//! The `quantize` action: a floating-point checkpoint in, a compressed-tensors checkpoint out.
//!
//! ```text
//! mod (parameters, checks) ─► layers (which tensors) ─► rtn (codes and scales of one) ─► writer
//! ```
//!
//! A method decides on the codes of one layer and knows no file; the writer knows no method.

mod error;
mod layers;
pub mod rtn;
mod writer;

use std::path::Path;

use qpipe_nodes::kinds::{Method, Quantize};
use qpipe_nodes::scheme::Scheme;
use serde_json::json;

use crate::context::{Context, Facts};
use crate::error::ActionError;
use crate::model::Checkpoint;
use crate::model::formats::quantization_method;

pub use error::QuantizeError;
pub use rtn::Rounding;

/// Runs the action.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    let parameters: Quantize = context.params()?;
    let rounding = match (parameters.method, parameters.scheme) {
        (Method::Rtn, Scheme::W8A8) => Rounding::Channel8,
        (Method::Rtn, Scheme::W4A16) => {
            Rounding::Group4 { group: i64::from(parameters.group().unwrap_or(128)) }
        }
    };
    let _no_gradients = tch::no_grad_guard();
    let sizes = quantize(context.input("model")?, &context.out()?, rounding, context)?;
    Ok(Facts::from([
        ("method".to_owned(), json!(parameters.method)),
        ("scheme".to_owned(), json!(parameters.scheme)),
        ("group_size".to_owned(), json!(parameters.group())),
        ("rounding".to_owned(), json!("nearest, half to even")),
        ("scale".to_owned(), json!(rounding.scale_rule())),
        ("layers".to_owned(), json!(sizes.layers)),
        ("bytes_before".to_owned(), json!(sizes.before)),
        ("bytes_after".to_owned(), json!(sizes.after)),
        ("linear_bytes_before".to_owned(), json!(sizes.linears_before)),
        ("linear_bytes_after".to_owned(), json!(sizes.linears_after)),
    ]))
}

/// Quantizes the linear layers of the blocks of the checkpoint at `source` into the folder `out`.
fn quantize(
    source: &Path,
    out: &Path,
    rounding: Rounding,
    context: &Context<'_>,
) -> Result<writer::Sizes, ActionError> {
    let checkpoint = Checkpoint::open(source)?;
    if let Some(method) = quantization_method(&checkpoint) {
        return Err(QuantizeError::AlreadyQuantized { method: method.to_owned() }.into());
    }
    let layers = layers::of_blocks(&checkpoint)?;
    for layer in &layers {
        rounding.check(layer)?;
    }
    let blocks = checkpoint.config.layers as u64;
    let mut writer = writer::QuantizedWriter::create(&checkpoint, &layers, rounding, out)?;
    writer.copy_the_rest()?;
    for (index, layer) in layers.iter().enumerate() {
        context.check_stop()?;
        let weight = checkpoint.tensor(&layer.weight)?.f_to_device(context.device())?;
        writer.put(layer, &rounding.round(&layer.weight, &weight)?)?;
        // Linears come block by block, equally many of each.
        let done = (index as u64 + 1) * blocks / layers.len() as u64;
        context.progress(done, blocks, "layers", None);
    }
    Ok(writer.finish()?)
}
