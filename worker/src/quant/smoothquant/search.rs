//! Alpha by trial: the one of a grid with the smallest error of the smoothed layers' outputs, over the model.
//!
//! The calibration's samples go through the unquantized model, block by block. The inputs of q, k, v and of gate, up
//! are multiplied with smoothed and rounded weights, activations rounded too, for each alpha; the squared error,
//! relative to the layers' outputs, is summed over blocks.

use qpipe_kernels::symmetric;
use qpipe_nodes::kinds::ScaleRule;
use tch::{Kind, Tensor};

use super::scales::{scales, smooth_weight};
use super::target::Target;
use crate::calibrate::Statistics;
use crate::context::Context;
use crate::error::ActionError;
use crate::model::Frame;
use crate::model::block::{Block, INPUTS, Part, PartInput, Source};
use crate::model::{Attention, BlockRunner, Checkpoint, LoadOptions};
use crate::quant::error::QuantizeError;

/// Alphas are tried from 0 to 1 in this many steps.
const STEPS: u32 = 20;
/// Tokens that are tried: enough for sums over thousands of outputs each.
const TOKENS: usize = 512;

/// The unit of a block that was searched.
fn unit(block: usize) -> String {
    format!("alpha-{block:05}.json")
}

/// The best alpha for `checkpoint` under `target`.
pub(super) fn best(
    rule: ScaleRule,
    target: Target,
    statistics: &Statistics,
    checkpoint: &Checkpoint,
    context: &Context<'_>,
) -> Result<f64, ActionError> {
    let alphas: Vec<f64> = (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS)).collect();
    let blocks = checkpoint.config.layers;
    // Of each block the relative squared error with each alpha of the grid.
    let mut errors = (0..blocks).map(|block| kept(context, block)).collect::<Result<Vec<_>, _>>()?;
    // No later block needs what comes out of the last open one.
    let passed = errors.iter().rposition(Option::is_none).map_or(0, |last| last + 1);
    if passed > 0 {
        let runner = BlockRunner::new(checkpoint, LoadOptions::inference(context.device(), None))?;
        let mut batches = batches(&runner, statistics, context)?;
        for (index, errors) in errors.iter_mut().enumerate().take(passed) {
            context.check_stop()?;
            let block = runner.load_block(index)?;
            let inputs = inputs(&runner, &block, &mut batches);
            if errors.is_none() {
                let mut found = vec![0.0; alphas.len()];
                for (input, seen) in inputs {
                    let linears = block.linears().into_iter().filter(|(part, _)| input.parts.contains(part));
                    let dense = linears.filter_map(|(_, linear)| linear.dense());
                    let weights: Vec<&Tensor> = dense.map(|dense| &dense.weight).collect();
                    let name = input.first.full_name(index);
                    let tried = Tried { x: Tensor::f_cat(&seen, 0)?, weights, rule, target };
                    for (sum, error) in found.iter_mut().zip(tried.errors(&name, statistics, &alphas)?) {
                        *sum += error;
                    }
                }
                let text = serde_json::to_vec(&found).map_err(std::io::Error::from)?;
                context.publish_unit(&unit(index), |path| Ok(fs_err::write(path, &text)?))?;
                *errors = Some(found);
            }
            context.progress(index as u64 + 1, blocks as u64, "layers searched for alpha", None);
        }
    }
    let sum = |alpha: usize| errors.iter().flatten().map(|errors| errors[alpha]).sum::<f64>();
    // The first of equals.
    let best = (0..alphas.len()).min_by(|&a, &b| sum(a).total_cmp(&sum(b))).unwrap_or_default();
    Ok(alphas[best])
}

/// The errors of a block that was searched before.
fn kept(context: &Context<'_>, block: usize) -> Result<Option<Vec<f64>>, ActionError> {
    let Some(file) = context.unit(&unit(block)) else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&fs_err::read(file)?).map_err(std::io::Error::from)?))
}

/// A calibration sample on its way: hidden states [1, T, hidden], and what the blocks need to know of it.
type Batch = (Tensor, Frame);

/// The first tokens of the calibration.
fn batches(
    runner: &BlockRunner<'_>,
    statistics: &Statistics,
    context: &Context<'_>,
) -> Result<Vec<Batch>, ActionError> {
    let mut batches = Vec::new();
    let mut left = TOKENS;
    for sequence in statistics.sequences()? {
        let ids = &sequence[..sequence.len().min(left)];
        left -= ids.len();
        if ids.is_empty() {
            continue;
        }
        let ids = Tensor::f_from_slice(ids)?.f_view([1, -1])?.f_to_device(context.device())?;
        let positions = Tensor::f_arange(ids.size()[1], (Kind::Int64, context.device()))?.f_unsqueeze(0)?;
        batches.push((runner.embed(&ids)?, runner.frame(&positions, &Attention::Causal)));
    }
    Ok(batches)
}

/// Takes all batches through `block`: its inputs that are smoothed, and what they were, [T, K] each.
fn inputs(runner: &BlockRunner<'_>, block: &Block, batches: &mut [Batch]) -> Vec<(PartInput, Vec<Tensor>)> {
    let is_smoothed = |input: &PartInput| matches!(input.source, Source::Norm(_));
    let mut inputs: Vec<_> =
        INPUTS.into_iter().filter(is_smoothed).map(|input| (input, Vec::new())).collect();
    for (hidden, frame) in batches {
        let observe = &mut |part: Part, input: &Tensor| {
            if let Some((_, seen)) = inputs.iter_mut().find(|(input, _)| input.first == part) {
                seen.push(input.view([-1, input.size()[2]]));
            }
        };
        *hidden = runner.forward(block, hidden.shallow_clone(), frame, observe);
    }
    inputs
}

/// Layers that share an input.
struct Tried<'a> {
    /// [T, K].
    x: Tensor,
    /// [N, K] each.
    weights: Vec<&'a Tensor>,
    rule: ScaleRule,
    target: Target,
}

impl Tried<'_> {
    /// The squared error of the outputs with each of `alphas`, relative to the outputs.
    fn errors(&self, name: &str, statistics: &Statistics, alphas: &[f64]) -> Result<Vec<f64>, QuantizeError> {
        let ranges = statistics.ranges(name)?;
        let device = self.x.device();
        let (min, max) = (ranges.min.f_to_device(device)?, ranges.max.f_to_device(device)?);
        let outputs = self
            .weights
            .iter()
            .map(|weight| self.x.f_to_kind(Kind::Float)?.f_mm(&weight.f_to_kind(Kind::Float)?.f_tr()?))
            .collect::<Result<Vec<_>, _>>()?;
        let energy = squares(&outputs)?;
        alphas
            .iter()
            .map(|&alpha| {
                let scales = scales(self.rule, (&min, &max), &self.weights, alpha)?;
                let x = self.rounded_input(&scales, (&min, &max))?;
                let mut differences = Vec::with_capacity(outputs.len());
                for (weight, output) in self.weights.iter().zip(&outputs) {
                    let weight = self.target.value(&smooth_weight(weight, &scales)?)?;
                    differences.push(x.f_mm(&weight.f_tr()?)?.f_sub(output)?);
                }
                Ok(squares(&differences)? / energy.max(f64::MIN_POSITIVE))
            })
            .collect()
    }

    /// The smoothed input as the codes of the scheme have it, f32.
    fn rounded_input(&self, scales: &Tensor, extremes: (&Tensor, &Tensor)) -> Result<Tensor, QuantizeError> {
        let x = (&self.x / scales).f_to_kind(self.x.kind())?;
        let scale = if self.target == Target::W8A8Static {
            let largest = extremes.0.f_abs()?.f_maximum(extremes.1)? / scales;
            symmetric::scales(&largest.f_to_kind(x.kind())?, 8)
        } else {
            symmetric::scales(&x, 8)
        };
        Ok(symmetric::codes(&x, &scale, 8).f_to_kind(Kind::Float)? * scale.f_to_kind(Kind::Float)?)
    }
}

fn squares(tensors: &[Tensor]) -> Result<f64, QuantizeError> {
    let mut sum = 0.0;
    for tensor in tensors {
        sum += f64::try_from(tensor.f_square()?.f_sum(Kind::Double)?)?;
    }
    Ok(sum)
}
