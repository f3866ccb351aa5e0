//! `calibrate`: what the linear layers of a model are given to multiply, measured on samples.
//!
//! ```text
//! data::rows ─► samples ─► batches (the grid) ─► resident ─► statistics
//!                                                   │
//!                  model::BlockRunner ─► observe ─► accumulate ─► moments
//! ```
//!
//! There is one running sum over one grid of micro-batches in one order: the calibration on 200 samples goes on
//! from that on 20, to the bits that it would have had without it.

pub mod accumulate;
pub mod batches;
mod error;
pub mod moments;
pub mod observe;
mod previous;
mod resident;
pub mod samples;
pub mod statistics;

use qpipe_nodes::kinds::{Calibrate, Extent};
use qpipe_nodes::protocol::Level;
use serde_json::json;

use crate::context::{Context, Facts};
use crate::data::{DataError, rows};
use crate::error::ActionError;
use crate::model::formats::quantization_method;
use crate::model::{BlockRunner, Checkpoint, LoadOptions, Tokenizer};

pub use error::CalibrateError;
pub use statistics::{Ranges, Statistics};

use samples::Samples;
use statistics::Summary;

/// Runs the action.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    let parameters: Calibrate = context.params()?;
    let folder = context.input("model")?;
    let checkpoint = Checkpoint::open(folder)?;
    if quantization_method(&checkpoint).is_some() {
        return Err(CalibrateError::Quantized { path: folder.to_owned() }.into());
    }
    let samples = samples(context, &parameters, &checkpoint)?;
    let out = context.out()?;
    statistics::write_samples(&out, &samples.sequences)?;
    let mut summary = Summary::new(
        parameters.extent(),
        samples.sequences.len() as u64,
        samples.tokens(),
        samples.cut as u64,
    );
    if parameters.extent() != Extent::Samples {
        let previous = previous::open(context, &samples, parameters.extent())?;
        let _no_gradients = tch::no_grad_guard();
        let options = LoadOptions::inference(context.device(), None);
        let runner = BlockRunner::new(&checkpoint, options)?;
        let blocks = resident::measure(context, &runner, &samples, parameters.extent(), previous.as_ref())?;
        for (index, accumulators) in blocks.iter().enumerate() {
            statistics::write_block(&out.join(statistics::block_file(index)), index, accumulators)?;
            summary.add_block(index, accumulators);
        }
    }
    summary.write(&out)?;
    Ok(facts(&summary, &samples))
}

fn samples(
    context: &Context<'_>,
    parameters: &Calibrate,
    checkpoint: &Checkpoint,
) -> Result<Samples, ActionError> {
    let data = context.input("data")?;
    let rows = rows::read(data).map_err(DataError::from)?;
    let tokenizer = Tokenizer::open(context.input("model")?)?;
    let limit = i64::from(parameters.max_length).min(checkpoint.config.max_positions) as usize;
    let count = parameters.samples as usize;
    let samples = samples::take(&rows, data, &tokenizer, (count, limit, parameters.seed))?;
    if samples.cut > 0 {
        context.log(Level::Warn, format!("{} of {count} samples were cut to {limit} tokens", samples.cut));
    }
    if let Some(first) = samples.empty.first() {
        let text = format!("{} empty rows are passed over, {first} first", samples.empty.len());
        context.log(Level::Warn, text);
    }
    Ok(samples)
}

fn facts(summary: &Summary, samples: &Samples) -> Facts {
    Facts::from([
        ("samples".to_owned(), json!(summary.samples)),
        ("tokens".to_owned(), json!(summary.tokens)),
        ("cut".to_owned(), json!(summary.cut)),
        ("empty".to_owned(), json!(samples.empty.len())),
        ("statistics".to_owned(), json!(summary.statistics)),
    ])
}
