//! The `benchmark` action.

use qpipe_kernels::Multiplier;
use qpipe_nodes::kinds::{Benchmark, Protocol};
use qpipe_nodes::limit::Limit;
use qpipe_nodes::protocol::Level;
use qpipe_nodes::results::{BENCHMARK_FILE, BenchmarkResult, Energy};
use serde_json::Value;

use super::batched::Batches;
use super::energy::Meter;
use super::hardware::Load;
use super::measure::{self, MIB, Measurement};
use super::{generation, hardware, sequential};
use crate::context::{Context, Facts};
use crate::error::ActionError;
use crate::eval::layout::Batch;
use crate::eval::prefixes::ReadPrefix;
use crate::eval::rows::Data;
use crate::eval::sequences::Encoder;
use crate::eval::task::TaskOptions;
use crate::eval::{Document, Task, engine, mcqa};
use crate::memory::{self, PeakMemory};
use crate::model::{Decoder, Products};
use crate::torch;

/// Questions answered before measuring begins, so that pages are read, threads are started and allocators are
/// filled.
const WARM_UP: usize = 3;

/// Measures a model on four-choice questions: `benchmark.json`.
///
/// # Errors
/// When the data, the tokenizer or the checkpoint are wrong, or the device keeps no statistics.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    let load_before = hardware::load_average();
    let (busy_before, clock_mhz) = (hardware::busy_share(), hardware::clock_mhz());
    let parameters: Benchmark = context.params()?;
    let options = TaskOptions {
        topic: &parameters.topic,
        candidates: parameters.candidates,
        limit: Some(Limit::Count(u64::from(parameters.questions))),
        ..TaskOptions::default()
    };
    let documents = mcqa::Mcqa.questions(&Data::open(context.input("data")?)?, &options)?.documents;
    if documents.len() < parameters.questions as usize {
        let found = documents.len();
        let message = format!("the data has {found} questions, {} were asked for", parameters.questions);
        context.log(Level::Warn, message);
    }
    let (checkpoint, tokenizer) = engine::open(context.input("model")?)?;
    let encoder = Encoder::new(&tokenizer, mcqa::Mcqa.rules(), None, checkpoint.config.max_positions)?;
    // Quantized models are measured beside a base whose layers are those that everybody else runs, as in the published study.
    let products = Products { attention: Multiplier::Fastest, ..Products::LIBTORCH };
    let decoder = engine::load(&checkpoint, context.device(), parameters.dtype, products)?;
    let bench = Bench {
        context,
        decoder: &decoder,
        encoder: &encoder,
        peak: PeakMemory::observe(context.device(), decoder.weight_bytes())?,
        documents: &documents,
    };
    let load = Load::start();
    let (measurements, energy) = match parameters.protocol {
        Protocol::Sequential => bench.sequential()?,
        Protocol::Batched => bench.batched()?,
    };
    let (mut speeds, mut roofline) = (Vec::new(), None);
    if let Some(asked) = &parameters.generation {
        let bounds = generation::roofline(context.device(), &decoder)?;
        let tokens: Vec<i64> = bench.tokens()?;
        speeds = generation::measure(context, &decoder, &bench.peak, &tokens, asked, &bounds)?;
        roofline = Some(bounds);
    }
    let busy_meanwhile = load.and_then(|load| load.of_others());
    let summary = measure::summarize(&measurements);
    let result = BenchmarkResult {
        protocol: parameters.protocol,
        device: torch::device_name(context.device()).to_owned(),
        hardware: hardware::name(context.device())?,
        threads: context.threads(),
        dtype: torch::kind_name(decoder.kind()).to_owned(),
        questions: measurements.len() as u64,
        avg_time_s: summary.avg_time_s,
        tokens_per_s: summary.tokens_per_s,
        avg_peak_vram_mb: summary.avg_peak_mib,
        weight_bytes: decoder.weight_bytes(),
        process_peak_mb: memory::process_peak_bytes().unwrap_or(0) as f64 / MIB,
        time_p50_s: summary.time_p50_s,
        time_p10_s: summary.time_p10_s,
        time_p90_s: summary.time_p90_s,
        load_before,
        busy_before,
        busy_meanwhile,
        clock_mhz,
        energy,
        generation: speeds,
        roofline,
    };
    context.write_json(BENCHMARK_FILE, &result)?;
    Ok(Facts::from([
        ("questions".to_owned(), Value::from(result.questions)),
        ("tokens_per_s".to_owned(), Value::from(result.tokens_per_s)),
        ("avg_peak_vram_MB".to_owned(), Value::from(result.avg_peak_vram_mb)),
    ]))
}

/// A model and the questions that it is measured on.
struct Bench<'a> {
    context: &'a Context<'a>,
    decoder: &'a Decoder,
    encoder: &'a Encoder<'a>,
    peak: PeakMemory,
    documents: &'a [Document],
}

impl Bench<'_> {
    /// The tokens of the questions, one after the other.
    fn tokens(&self) -> Result<Vec<i64>, ActionError> {
        let mut tokens = Vec::new();
        for document in self.documents {
            tokens.extend(
                self.encoder
                    .encode(document)?
                    .0
                    .into_iter()
                    .next()
                    .map(|sequence| sequence.ids)
                    .unwrap_or_default(),
            );
        }
        Ok(tokens)
    }

    fn sequential(&self) -> Result<(Vec<Measurement>, Option<Energy>), ActionError> {
        let measure = |document| sequential::measure(self.decoder, self.encoder, &self.peak, document);
        for document in self.documents.iter().take(WARM_UP) {
            measure(document)?;
        }
        let (mut meter, mut joules) = (Meter::start(self.context.device()), 0.0);
        let mut measurements = Vec::with_capacity(self.documents.len());
        for document in self.documents {
            self.context.check_stop()?;
            measurements.push(measure(document)?);
            self.progress(&measurements);
            joules += meter.as_mut().map_or(0.0, Meter::taken);
        }
        let energy = meter.and_then(|meter| energy(&meter, joules, &measurements));
        Ok((measurements, energy))
    }

    fn batched(&self) -> Result<(Vec<Measurement>, Option<Energy>), ActionError> {
        let batches = Batches::new(self.encoder, self.decoder, self.documents)?;
        let measure = |batch: &Batch, kept: &mut ReadPrefix| {
            batches.measure(self.decoder, &self.peak, self.documents, batch, kept)
        };
        if let Some(first) = batches.iter().next() {
            measure(first, &mut ReadPrefix::default())?;
        }
        let (mut meter, mut joules) = (Meter::start(self.context.device()), 0.0);
        let mut measurements = Vec::with_capacity(self.documents.len());
        let mut kept = ReadPrefix::default();
        for batch in batches.iter() {
            self.context.check_stop()?;
            measurements.extend(measure(batch, &mut kept)?);
            self.progress(&measurements);
            joules += meter.as_mut().map_or(0.0, Meter::taken);
        }
        let energy = meter.and_then(|meter| energy(&meter, joules, &measurements));
        Ok((measurements, energy))
    }

    fn progress(&self, measurements: &[Measurement]) {
        self.context.progress(measurements.len() as u64, self.documents.len() as u64, "questions", None);
    }
}

/// What `meter` counted for `measurements`; `None` where they took too little time for it.
fn energy(meter: &Meter, joules: f64, measurements: &[Measurement]) -> Option<Energy> {
    let seconds: f64 = measurements.iter().map(|one| one.seconds).sum();
    let tokens: u64 = measurements.iter().map(|one| one.tokens).sum();
    let energy = Energy {
        source: meter.source(),
        joules_per_question: joules / measurements.len() as f64,
        joules_per_token: joules / tokens as f64,
    };
    (seconds >= meter.least_seconds()).then_some(energy)
}
