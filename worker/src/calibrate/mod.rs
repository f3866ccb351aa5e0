//! `calibrate`: what the linear layers of a model are given to multiply, measured on samples.
//!
//! ```text
//! data::rows ─► samples ─► batches (the grid) ─► resident, or ─┐
//!                             budget: which of them? ─► streamed ─► measured (files) ─► statistics
//!                                                              │
//!                           model::BlockRunner ─► observe ─► accumulate ─► moments
//! ```
//!
//! There is one running sum over one grid of micro-batches in one order: the calibration on 200 samples goes on
//! from that on 20, to the bits that it would have had without it. So does one that was killed, from its last unit;
//! and whether the blocks or the samples are in the outer loop makes no difference.

pub mod accumulate;
pub mod batches;
mod budget;
mod error;
mod hidden;
pub mod measured;
pub mod moments;
pub mod observe;
mod previous;
mod resident;
mod run;
pub mod samples;
pub mod statistics;
mod streamed;
mod units;

use std::collections::BTreeMap;

use qpipe_nodes::kinds::{Calibrate, Extent};
use qpipe_nodes::protocol::Level;
use serde_json::json;

use crate::context::{Context, Facts};
use crate::data::{DataError, rows};
use crate::error::ActionError;
use crate::memory;
use crate::model::block::INPUTS;
use crate::model::formats::quantization_method;
use crate::model::{Checkpoint, LoadOptions, Tokenizer};

pub use budget::Way;
pub use error::CalibrateError;
pub use statistics::{Ranges, Statistics};

use batches::batches_of;
use budget::Needs;
use run::Run;
use samples::Samples;
use statistics::{InputSummary, Summary};

/// Runs the action.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    run_as(context, None)
}

/// Runs the action in the given way, or in the one that needs least memory.
pub fn run_as(context: &Context<'_>, way: Option<Way>) -> Result<Facts, ActionError> {
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
        measure(context, &checkpoint, &samples, parameters.extent(), way)?;
        for index in 0..checkpoint.config.layers {
            summary.add_block(&out, index)?;
        }
        warn_of_few_tokens(context, &summary);
    }
    summary.write(&out)?;
    Ok(facts(&summary, &samples))
}

/// Writes the files of all blocks.
fn measure(
    context: &Context<'_>,
    checkpoint: &Checkpoint,
    samples: &Samples,
    extent: Extent,
    way: Option<Way>,
) -> Result<(), ActionError> {
    let _no_gradients = tch::no_grad_guard();
    let previous = previous::open(context, samples, extent)?;
    let options = LoadOptions::inference(context.device(), None);
    let batches = batches::grid(&samples.sequences);
    let start = previous.as_ref().map_or(0, |previous| batches_of(&batches, previous.samples() as usize));
    let needs = Needs::of(checkpoint, options.kind(checkpoint)?, extent, &batches[start..])?;
    let limit = memory::limit(context.device(), context.max_memory());
    let way = way.unwrap_or_else(|| needs.choose(limit));
    if way == Way::StreamedFromDisk {
        let mebibytes = |way: Way| needs.bytes(way).div_ceil(1 << 20);
        let text = format!(
            "hidden states are kept on disk: in memory, {} MiB would be needed",
            mebibytes(Way::Resident).min(mebibytes(Way::Streamed))
        );
        context.log(Level::Info, text);
    }
    let run = Run {
        context,
        checkpoint,
        options,
        samples,
        batches: &batches,
        extent,
        previous: previous.as_ref(),
        start,
    };
    match way {
        Way::Resident => resident::measure(&run, needs.measured, &context.out()?),
        Way::Streamed => streamed::measure(&run, false, needs.measured_block, &context.out()?),
        Way::StreamedFromDisk => streamed::measure(&run, true, needs.measured_block, &context.out()?),
    }
}

/// XᵀX of fewer tokens than channels is singular: what GPTQ makes of it rests on its damping.
fn warn_of_few_tokens(context: &Context<'_>, summary: &Summary) {
    let scarce = |input: &&InputSummary| (input.tokens as i64) < input.channels;
    let few: Vec<&InputSummary> = summary.inputs.iter().filter(scarce).collect();
    if summary.statistics == Extent::Moments
        && let Some(worst) = few.iter().max_by_key(|input| input.channels)
    {
        let text = format!(
            "{} samples are {} tokens, fewer than the {} channels of `{}`{}: second moments are singular",
            summary.samples,
            worst.tokens,
            worst.channels,
            worst.linears[0],
            if few.len() > 1 { format!(" and {} inputs more", few.len() - 1) } else { String::new() }
        );
        context.log(Level::Warn, text);
    }
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
    let mut facts = Facts::from([
        ("samples".to_owned(), json!(summary.samples)),
        ("tokens".to_owned(), json!(summary.tokens)),
        ("cut".to_owned(), json!(summary.cut)),
        ("empty".to_owned(), json!(samples.empty.len())),
        ("statistics".to_owned(), json!(summary.statistics)),
    ]);
    if !summary.inputs.is_empty() {
        // All blocks see the same tokens; the fewest of each kind of input would show if one did not.
        let fewest = INPUTS.map(|input| {
            let part = input.first.name();
            let of_kind = summary.inputs.iter().filter(|input| input.linears[0].ends_with(part));
            (part, of_kind.map(|input| input.tokens).min())
        });
        facts.insert("tokens_of_inputs".to_owned(), json!(BTreeMap::from(fewest)));
        let ratio = |input: &InputSummary| input.tokens as f64 / input.channels as f64;
        let least = summary.inputs.iter().map(ratio).fold(f64::INFINITY, f64::min);
        facts.insert("tokens_per_channel".to_owned(), json!(least));
        let dead: i64 = summary.inputs.iter().map(|input| input.dead).sum();
        facts.insert("dead_channels".to_owned(), json!(dead));
    }
    facts
}
