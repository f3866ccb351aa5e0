//! The `quantize` action: a floating-point checkpoint in, a quantized one out.
//!
//! ```text
//! mod ─► METHODS ─► Box<dyn Method> ─┐
//!                                    ▼
//! blocks (one decoder block after the other) ─► Method::quantize ─► a unit of tensors ─► assemble ─► out/
//! ```
//!
//! `outside` takes the embedding and the output projection where the options ask for it, for all methods.
//!
//! A method turns the weights of one block into the tensors of its format and knows no file; `blocks` and
//! `assemble` know no method. A finished block is a unit: after a crash it is not computed again.

mod assemble;
pub mod awq;
mod blocks;
pub mod bnb_int8;
pub mod bnb_nf4;
mod error;
pub mod gptq;
pub mod int8_dynamic;
mod layers;
mod method;
mod outside;
pub mod progressive;
pub mod rtn;
pub mod smoothquant;

use std::collections::BTreeMap;

use qpipe_nodes::kinds::Quantize;
use qpipe_nodes::protocol::Level;
use qpipe_nodes::results::{QUANTIZATION_FILE, Quantization};
use serde_json::{Value, json};

use crate::context::{Context, Facts};
use crate::error::ActionError;
use crate::model::formats::quantization_method;
use crate::model::{Checkpoint, expected};

pub use error::QuantizeError;
pub use rtn::Rounding;

use method::{DAMPING, Method};
use outside::Outside;

/// Runs the action.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    let options: Quantize = context.params()?;
    let checkpoint = Checkpoint::open(context.input("model")?)?;
    if let Some(method) = quantization_method(&checkpoint) {
        return Err(QuantizeError::AlreadyQuantized { method: method.to_owned() }.into());
    }
    expected::check(&checkpoint)?;
    let _no_gradients = tch::no_grad_guard();
    Outside::check(options.outside(), &checkpoint)?;
    let mut method = method_of(&options, context, &checkpoint)?;
    let layers = layers::of_blocks(&checkpoint)?;
    layers::check(&layers, |layer| method.check(layer))?;
    let mut config = method.config();
    let outside = Outside::new(options.outside(), &checkpoint, &config)?;
    outside.describe(&mut config);
    let units = blocks::quantize(&checkpoint, layers, method.as_mut(), &outside, context)?;
    let sizes = assemble::assemble(&checkpoint, &units, &config, &context.out()?)?;
    let mut settings = method.facts();
    settings.extend(outside.facts());
    if let Some(raised) = units.damping_raised(settings.get(DAMPING).and_then(Value::as_f64)) {
        context
            .log(Level::Warn, format!("damping raised {raised}: the second moments are singular without it"));
        settings.insert("damping_raised".to_owned(), json!(raised));
    }
    let description = Quantization {
        method: options.method().to_owned(),
        settings: settings.clone(),
        fallbacks: units.fallbacks(),
    };
    context.write_json(QUANTIZATION_FILE, &description)?;

    let mut facts = settings;
    facts.insert("method".to_owned(), json!(options.method()));
    facts.insert("layers".to_owned(), json!(units.layers));
    facts.insert("bytes_before".to_owned(), json!(sizes.before));
    facts.insert("bytes_after".to_owned(), json!(sizes.after));
    facts.insert("linear_bytes_before".to_owned(), json!(sizes.linears_before));
    facts.insert("linear_bytes_after".to_owned(), json!(sizes.linears_after));
    let notes: BTreeMap<_, _> = units.notes.into_iter().collect();
    if !notes.is_empty() {
        facts.insert("notes".to_owned(), json!(notes));
    }
    Ok(facts)
}

/// The table of methods.
fn method_of<'a>(
    options: &Quantize,
    context: &Context<'_>,
    checkpoint: &'a Checkpoint,
) -> Result<Box<dyn Method + 'a>, ActionError> {
    Ok(match options {
        Quantize::Awq(options) => Box::new(awq::Awq::new(options, context, checkpoint)?),
        Quantize::BnbInt8(options) => Box::new(bnb_int8::BnbInt8::new(options)),
        Quantize::BnbNf4(options) => Box::new(bnb_nf4::BnbNf4::new(options)),
        Quantize::Gptq(options) => Box::new(gptq::Gptq::new(options, context, checkpoint)?),
        Quantize::Int8Dynamic(options) => Box::new(int8_dynamic::Int8Dynamic::new(options)),
        Quantize::Rtn(options) => Box::new(rtn::Rtn::new(options)),
        Quantize::Smoothquant(options) => {
            Box::new(smoothquant::Smoothquant::new(options, context, checkpoint)?)
        }
    })
}
