//! `sft`: supervised fine-tuning of an adapter or of all parameters; `sft-merge`.
//!
//! ```text
//! data::rows ─► encode ─► batches ─► gradients ─► optimizer, schedule ─► train ─► adapter, or a checkpoint
//!                                         ▲                                │
//!                                  lora ──┘                             resume
//! ```
//!
//! A run is a function of its inputs, parameters, device class and thread count, bit for bit, whether or not it
//! was interrupted.

pub mod adapter;
pub mod adapter_error;
mod adapter_settings;
pub mod batches;
pub mod encode;
pub mod error;
pub mod gradients;
pub mod lora;
pub mod merge;
pub mod optimizer;
pub mod precision;
pub mod resume;
pub mod schedule;
pub mod train;

use std::path::Path;

use qpipe_nodes::kinds::Sft;
use qpipe_nodes::protocol::Level;
use serde_json::{Value, json};
use tch::Tensor;

use self::batches::Order;
use self::encode::{Encoder, Sample};
use self::error::SftError;
use self::optimizer::{AdamW, Parameter};
use self::schedule::Schedule;
use self::train::{Outcome, Training};
use crate::context::{Context, Facts};
use crate::data::{DataError, rows};
use crate::error::ActionError;
use crate::model::{Checkpoint, Decoder, LoadOptions, TensorSpec, Tokenizer, decoder, save};

/// Runs an `sft` action.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    let parameters: Sft = context.params()?;
    let folder = context.input("model")?;
    let checkpoint = open_unquantized(folder, "its integer weights cannot take up small updates")?;
    let samples = samples(context, &parameters, &checkpoint)?;
    let rows = samples.len();
    let mut training = prepare(context, &parameters, &checkpoint, samples)?;
    let outcome = training.run(context, serde_json::to_string(&parameters).unwrap_or_default())?;
    let out = context.out()?;
    match &parameters.lora {
        Some(lora) => adapter::write(&out, lora, &trained(&training.optimizer)).map_err(SftError::from)?,
        None => write_model(&out, folder, &checkpoint, &training.optimizer)?,
    }
    Ok(facts(&training, &outcome, rows))
}

/// Opens the checkpoint in `folder`; `why` says what a quantized one is no good for.
fn open_unquantized(folder: &Path, why: &'static str) -> Result<Checkpoint, SftError> {
    let checkpoint = Checkpoint::open(folder)?;
    if checkpoint.quantization_config().is_some() {
        return Err(SftError::Quantized { path: folder.to_owned(), why });
    }
    Ok(checkpoint)
}

fn samples(
    context: &Context<'_>,
    parameters: &Sft,
    checkpoint: &Checkpoint,
) -> Result<Vec<Sample>, ActionError> {
    let data = context.input("data")?;
    let rows = rows::read(data).map_err(DataError::from)?;
    let tokenizer = Tokenizer::open(context.input("model")?)?;
    let limit = i64::from(parameters.max_length).min(checkpoint.config.max_positions);
    let encoded = Encoder::new(&tokenizer, limit as usize)?.all(&rows)?;
    if encoded.cut > 0 {
        context.log(
            Level::Warn,
            format!("{} of {} rows were cut to {limit} tokens", encoded.cut, rows.rows.len()),
        );
    }
    if let Some(first) = encoded.empty.first() {
        let count = encoded.empty.len();
        let text = format!(
            "{count} of {} rows have no token to learn from and are left out, {first} first",
            rows.rows.len()
        );
        context.log(Level::Warn, text);
    }
    if encoded.samples.is_empty() {
        return Err(SftError::NothingToLearn { path: data.to_owned(), rows: rows.rows.len() }.into());
    }
    Ok(encoded.samples)
}

fn prepare(
    context: &Context<'_>,
    parameters: &Sft,
    checkpoint: &Checkpoint,
    samples: Vec<Sample>,
) -> Result<Training, ActionError> {
    let device = context.device();
    let stored = checkpoint.float_kind()?;
    let kind = precision::compute_kind(stored, device);
    let options =
        LoadOptions { trainable: parameters.lora.is_none(), ..LoadOptions::inference(device, Some(kind)) };
    let mut decoder = Decoder::load(checkpoint, &options)?;
    let trained: Vec<Parameter> = match &parameters.lora {
        Some(lora) => lora::attach(&mut decoder, lora, parameters.seed, device)?,
        None => {
            decoder.named_parameters().into_iter().map(|(name, live)| Parameter::new(name, live)).collect()
        }
    };
    let threads = context.threads() as usize;
    let optimizer = AdamW::new(trained, parameters.weight_decay, parameters.clip, threads);
    let rows_per_step = u64::from(parameters.batch_size) * u64::from(parameters.grad_accumulation);
    let total = match (parameters.steps, parameters.epochs) {
        (Some(steps), _) => steps * rows_per_step,
        (None, epochs) => ((epochs.unwrap_or(1.0) * samples.len() as f64).round() as u64).max(1),
    };
    let order = Order::new(samples.len(), total, rows_per_step, parameters.seed);
    Ok(Training {
        schedule: Schedule {
            peak: parameters.learning_rate,
            warmup: parameters.warmup,
            steps: order.steps(),
        },
        decoder,
        optimizer,
        samples,
        order,
        batch_size: parameters.batch_size as usize,
        seed: parameters.seed,
    })
}

fn trained(optimizer: &AdamW) -> Vec<(String, Tensor)> {
    optimizer
        .parameters()
        .iter()
        .map(|parameter| (parameter.name.clone(), parameter.master.detach()))
        .collect()
}

/// Writes the trained model: every tensor of the checkpoint in its own type.
fn write_model(
    out: &Path,
    source: &Path,
    checkpoint: &Checkpoint,
    optimizer: &AdamW,
) -> Result<(), SftError> {
    let mut specs = Vec::new();
    for name in checkpoint.names() {
        // Some checkpoints store a tied output projection a second time; it would now contradict the embedding.
        let stale =
            checkpoint.config.tie_word_embeddings && name.strip_suffix(".weight") == Some(decoder::HEAD);
        if !stale {
            specs.push(TensorSpec {
                name: name.to_owned(),
                kind: checkpoint.kind(name)?,
                shape: checkpoint.shape(name)?,
            });
        }
    }
    let produce = |spec: &TensorSpec| -> Result<Tensor, SftError> {
        match optimizer.parameters().iter().find(|parameter| parameter.name == spec.name) {
            Some(parameter) => Ok(parameter.master.detach().f_to_kind(spec.kind)?),
            None => Ok(checkpoint.tensor(&spec.name)?),
        }
    };
    save::write_checkpoint(out, specs, produce, source, None)
}

fn facts(training: &Training, outcome: &Outcome, rows: usize) -> Facts {
    let losses = &outcome.progress.losses;
    // One step's loss depends on its rows; the mean of the last tenth says more.
    let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
    let mean = tail.iter().map(|loss| f64::from(*loss)).sum::<f64>() / tail.len().max(1) as f64;
    let parameters: usize =
        training.optimizer.parameters().iter().map(|parameter| parameter.master.numel()).sum();
    let facts: [(&str, Value); 8] = [
        ("final_loss", json!(losses.last())),
        ("loss_last_tenth", json!(mean)),
        ("steps", json!(training.optimizer.steps())),
        ("rows", json!(rows)),
        ("tokens", json!(outcome.progress.tokens)),
        ("learned_tokens", json!(outcome.progress.learned)),
        ("trained_parameters", json!(parameters)),
        ("tokens_per_s", json!(outcome.tokens_per_second)),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
