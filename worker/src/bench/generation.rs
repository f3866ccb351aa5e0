//! How fast a model reads prompts and writes: batches of equal prompts, continued through the KV cache.

use std::time::Instant;

use qpipe_kernels::{Input, KernelError, Multiplier, Scheme, random};
use qpipe_nodes::kinds::Generation;
use qpipe_nodes::protocol::Failure;
use qpipe_nodes::results::{GenerationSpeed, Roofline};
use tch::{Cuda, Device, Kind, TchError, Tensor};

use super::energy::Meter;
use super::measure::{MIB, percentile};
use crate::context::Context;
use crate::error::ActionError;
use crate::memory::PeakMemory;
use crate::model::Decoder;
use crate::model::generate::generate;
use crate::torch;

/// Bytes that are copied to measure bandwidth, on a CPU and on a card: beyond the caches of most.
const COPIED: [i64; 2] = [256 << 20, 1 << 30];
/// The sides of the products that are measured, likewise: a card needs larger ones to be busy.
const SIDE: [i64; 2] = [2048, 8192];
/// Times that each is measured; the best counts, as a bound should.
const REPEATS: usize = 5;

/// One batch size after the other. `tokens` is what prompts are cut from, over and over where it is short.
///
/// # Errors
/// When prompt and reply are longer than the model's context, the device keeps no statistics, or libtorch fails.
pub fn measure(
    context: &Context<'_>,
    decoder: &Decoder,
    peak: &PeakMemory,
    tokens: &[i64],
    asked: &Generation,
    bounds: &Roofline,
) -> Result<Vec<GenerationSpeed>, ActionError> {
    let (longest, context_size) =
        (i64::from(asked.prompt) + i64::from(asked.new), decoder.config().max_positions);
    if longest > context_size {
        let message =
            format!("`generation` asks for {longest} tokens, the model has {context_size} positions");
        return Err(ActionError::user(message));
    }
    let read = decoder.step_bytes() as f64;
    let products = decoder.prompt_products(u64::from(asked.prompt)) as f64;
    let prompt: Vec<i64> = tokens.iter().copied().cycle().take(asked.prompt as usize).collect();
    let mut speeds = Vec::new();
    for &batch in &asked.batches {
        let read_tokens = f64::from(batch) * f64::from(asked.prompt);
        let prompts = vec![prompt.as_slice(); batch as usize];
        run(decoder, &prompts, asked.new.min(2), &mut None)?;
        peak.reset()?;
        let mut energy = Meter::start(context.device()).map(Phases::new);
        let (mut first, mut steps) = (Vec::new(), Vec::new());
        for _ in 0..asked.repeats {
            context.check_stop()?;
            let mut times = run(decoder, &prompts, asked.new, &mut energy)?.into_iter();
            first.extend(times.next());
            steps.extend(times);
        }
        first.sort_by(f64::total_cmp);
        steps.sort_by(f64::total_cmp);
        let (to_first, step) = (percentile(&first, 0.5), percentile(&steps, 0.5));
        speeds.push(GenerationSpeed {
            batch,
            prompt: asked.prompt,
            new: asked.new,
            time_to_first_token_s: to_first,
            prefill_tokens_per_s: read_tokens / to_first,
            decode_tokens_per_s: f64::from(batch) / step,
            step_p50_s: step,
            step_p90_s: percentile(&steps, 0.9),
            step_p99_s: percentile(&steps, 0.99),
            peak_mb: peak.peak_bytes()? as f64 / MIB,
            // A copy reads and writes each byte; weights are only read.
            decode_of_bandwidth: read / step / bounds.copy_bytes_per_s,
            prefill_of_matmul: 2.0 * f64::from(batch) * products / to_first / bounds.matmul_flops,
            prefill_joules_per_token: energy
                .as_ref()
                .and_then(|energy| energy.a_token(energy.prefill, &first, read_tokens)),
            decode_joules_per_token: energy
                .as_ref()
                .and_then(|energy| energy.a_token(energy.decode, &steps, f64::from(batch))),
        });
    }
    Ok(speeds)
}

/// What the device took, in joules: to the first tokens, and for those after them.
struct Phases {
    meter: Meter,
    prefill: f64,
    decode: f64,
}

impl Phases {
    fn new(meter: Meter) -> Self {
        Self { meter, prefill: 0.0, decode: 0.0 }
    }

    /// `joules` over so many tokens for each of `times`; `None` where these are too short for the counter.
    fn a_token(&self, joules: f64, times: &[f64], tokens: f64) -> Option<f64> {
        let seconds: f64 = times.iter().sum();
        (seconds >= self.meter.least_seconds()).then(|| joules / (tokens * times.len() as f64))
    }
}

/// Seconds to the first token, and to each of the others after the one before it.
fn run(
    decoder: &Decoder,
    prompts: &[&[i64]],
    new: u32,
    energy: &mut Option<Phases>,
) -> Result<Vec<f64>, TchError> {
    let mut times = Vec::with_capacity(new as usize);
    if let Some(energy) = energy {
        // What came between two runs is neither's.
        energy.meter.taken();
    }
    let mut began = Instant::now();
    generate::<TchError>(decoder, prompts, new as usize, &mut |_, logits| {
        // The choice comes to the CPU, so that a GPU's work is done when the time is taken.
        let chosen = Vec::<i64>::try_from(logits.f_argmax(-1, false)?)?;
        times.push(began.elapsed().as_secs_f64());
        if let Some(energy) = energy {
            let phase = if times.len() == 1 { &mut energy.prefill } else { &mut energy.decode };
            *phase += energy.meter.taken();
        }
        began = Instant::now();
        let is_open = times.len() < new as usize;
        Ok(chosen.into_iter().map(|token| is_open.then_some(token)).collect())
    })?;
    Ok(times)
}

/// What `device` does at best, with products as `decoder`'s layers take them: the bounds that speeds are compared with.
///
/// # Errors
/// Only libtorch's, and those of a kernel of int8.
pub fn roofline(device: Device, decoder: &Decoder) -> Result<Roofline, ActionError> {
    let [copied, side] = [COPIED, SIDE].map(|sizes| sizes[usize::from(device.is_cuda())]);
    let source = Tensor::f_zeros([copied], (Kind::Uint8, device))?;
    let mut target = source.f_empty_like()?;
    let copy = best(device, || target.f_copy_(&source))?;
    let kind = decoder.multiplied_in();
    let product = match kind {
        // Rows are quantized, too, which takes less than a hundredth of the time.
        Kind::Int8 => {
            let x = Tensor::f_rand([side, side], (decoder.kind(), device))?;
            let failed = |error: KernelError| ActionError::new(Failure::Surroundings, error.to_string());
            let weight = random::weight(Scheme::W8A8, side, side, decoder.kind(), false).map_err(failed)?;
            let layer = qpipe_kernels::prepare(&weight, device, decoder.kind()).map_err(failed)?;
            best(device, || {
                drop(layer.forward(&x));
                Ok(())
            })?
        }
        // Equal numbers take a card less power, and so less time.
        kind => {
            let a = Tensor::f_rand([side, side], (kind, device))?;
            best(device, || qpipe_kernels::linear(&Input::new(&a), &a, None, Multiplier::Libtorch).map(drop))?
        }
    };
    Ok(Roofline {
        // Each byte is read and written.
        copy_bytes_per_s: 2.0 * copied as f64 / copy,
        matmul_flops: 2.0 * (side as f64).powi(3) / product,
        matmul_dtype: torch::kind_name(kind).to_owned(),
    })
}

fn best(device: Device, mut work: impl FnMut() -> Result<(), TchError>) -> Result<f64, TchError> {
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let began = Instant::now();
        work()?;
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best)
}
