//! GPTQ (Frantar et al., 2022, arXiv 2210.17323), in two profiles: llm-compressor's and GPTQModel's.
//!
//! ```text
//! calibration ─► second moments ─┐ (or replay: of the quantized layers' outputs)
//!                                ▼
//!                  factor: U of (H + damping)⁻¹, one for all layers that share the input
//!                                ▼
//! weight, grid's scales ─► solve: block by block of columns ─► codes ─► stored
//! ```

mod factor;
mod grid;
mod order;
mod replay;
mod running;
mod solve;
mod stored;

use std::ops::Range;

use qpipe_nodes::kinds::{self, GptqProfile, Propagate};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::error::QuantizeError;
use super::layers::Layer;
use super::method::{Block, DYNAMIC_ACTIVATIONS, FLOAT_ACTIVATIONS, Method, Quantized};
use crate::calibrate::Statistics;
use crate::context::{Context, Facts};
use crate::error::ActionError;
use crate::model::block::INPUTS;
use crate::model::{Checkpoint, TensorFiles};

pub use solve::Solved;

pub(super) use factor::{Factor, Recipe};
pub(super) use grid::llmc as llmc_rule;
pub(super) use solve::{Rule, Scales, solve};

use grid::Grid;
use replay::Replay;

/// Where second moments come from.
#[derive(Debug)]
enum Source<'a> {
    /// The calibration: of the unquantized model.
    Calibration,
    /// A run of the quantized layers.
    Replay(Box<Replay<'a>>),
}

/// The method `gptq`, ready for a model.
#[derive(Debug)]
pub(super) struct Gptq<'a> {
    options: kinds::Gptq,
    grid: Grid,
    statistics: Statistics,
    source: Source<'a>,
}

impl<'a> Gptq<'a> {
    /// Opens the calibration.
    pub(super) fn new(
        options: &kinds::Gptq,
        context: &Context<'_>,
        checkpoint: &'a Checkpoint,
    ) -> Result<Self, ActionError> {
        let statistics = Statistics::open(context.input("calibration")?)?;
        statistics.check_fits(&checkpoint.config)?;
        let source = match options.propagate {
            Propagate::None => Source::Calibration,
            Propagate::Quantized => {
                Source::Replay(Box::new(Replay::open(&statistics, checkpoint, context.device())?))
            }
        };
        Ok(Self { options: options.clone(), grid: Grid::of(options), statistics, source })
    }

    /// H of the input of `layer`: 2/n times the sum of x xᵀ, n being tokens for GPTQModel and samples for
    /// llm-compressor. And the tokens.
    fn hessian(&self, layer: &Layer, device: Device) -> Result<(Tensor, u64), QuantizeError> {
        let (moments, tokens) = match &self.source {
            Source::Calibration => {
                (self.statistics.moments(&layer.name)?, self.statistics.tokens(&layer.name)?)
            }
            Source::Replay(replay) => replay.moments(&layer.name)?,
        };
        if moments.size() != [layer.in_features, layer.in_features] {
            return Err(QuantizeError::Calibration {
                linear: layer.name.clone(),
                expected: layer.in_features,
                found: moments.size()[0],
            });
        }
        let count = match self.options.profile {
            GptqProfile::Llmc => self.statistics.samples(),
            GptqProfile::Gptqmodel => tokens,
        };
        let mut moments = moments.f_to_device(device)?;
        let _ = moments.f_mul_scalar_(2.0 / count.max(1) as f64)?;
        Ok((moments, tokens))
    }

    /// Which inputs are measured together: GPTQModel's layers see those before them in the block quantized.
    fn stages(&self) -> Vec<Range<usize>> {
        match self.options.profile {
            GptqProfile::Llmc => vec![0..INPUTS.len(); 1],
            GptqProfile::Gptqmodel => (0..INPUTS.len()).map(|input| input..input + 1).collect(),
        }
    }

    /// Quantizes the layers that share input number `input` of the block.
    fn quantize_input(
        &mut self,
        block: &Block,
        input: usize,
        quantized: &mut Quantized,
    ) -> Result<(), QuantizeError> {
        let input = INPUTS[input];
        let first = block.linear(input.first);
        let (hessian, tokens) = self.hessian(&first.layer, first.weight.device())?;
        let factor = Factor::of(hessian, recipe(&self.options, &self.grid))?;
        for linear in input.parts.iter().map(|&part| block.linear(part)) {
            let rule = self.grid.rule(&linear.weight, &factor)?;
            let solved = solve(&linear.weight, &factor, &rule)?;
            quantized.notes.insert(linear.layer.name.clone(), factor.note(solved.loss, tokens));
            if let Source::Replay(replay) = &mut self.source {
                replay.replace(&linear.layer.name, &solved.values)?;
            }
            quantized.tensors.extend(stored::store(&linear.layer, &self.options, solved)?);
        }
        Ok(())
    }
}

impl Method for Gptq<'_> {
    fn check(&self, layer: &Layer) -> Result<(), QuantizeError> {
        if let Some(group) = self.grid.group
            && layer.in_features % group != 0
        {
            return Err(QuantizeError::Group {
                tensor: layer.weight.clone(),
                in_features: layer.in_features,
                group,
                fitting: Vec::new(),
            });
        }
        stored::check(layer, &self.options)
    }

    fn quantize(&mut self, block: Block) -> Result<Quantized, QuantizeError> {
        let mut quantized = Quantized::default();
        for stage in self.stages() {
            if let Source::Replay(replay) = &mut self.source {
                replay.measure(stage.clone())?;
            }
            for input in stage {
                self.quantize_input(&block, input, &mut quantized)?;
            }
        }
        Ok(quantized)
    }

    fn passed(&mut self, index: usize, tensors: TensorFiles) -> Result<(), QuantizeError> {
        let config = self.config();
        match &mut self.source {
            Source::Calibration => Ok(()),
            Source::Replay(replay) => replay.pass(index, &config, tensors),
        }
    }

    fn config(&self) -> Value {
        stored::config(&self.options)
    }

    fn facts(&self) -> Facts {
        let options = &self.options;
        let activations =
            if options.quantizes_activations() { DYNAMIC_ACTIVATIONS } else { FLOAT_ACTIVATIONS };
        Facts::from([
            ("bits".to_owned(), json!(options.bits())),
            ("group_size".to_owned(), json!(options.group())),
            ("symmetric".to_owned(), json!(options.symmetric())),
            ("profile".to_owned(), json!(options.profile)),
            ("order".to_owned(), json!(options.order())),
            ("static_groups".to_owned(), json!(options.static_groups())),
            ("damping".to_owned(), json!(options.damping())),
            ("propagate".to_owned(), json!(options.propagate)),
            ("format".to_owned(), json!(options.format())),
            ("rounding".to_owned(), json!("GPTQ, half to even")),
            ("scale".to_owned(), json!(self.grid.scale_rule())),
            ("activations".to_owned(), json!(activations)),
            ("samples".to_owned(), json!(self.statistics.samples())),
            ("tokens".to_owned(), json!(self.statistics.summary().tokens)),
        ])
    }
}

/// GPTQ of one `weight`, [N, K] of the model's type, where `hessian`, f32 [K, K], is 2/n times the sum of x xᵀ of its
/// inputs. With the same `hessian` and number of threads, and where its factorization succeeds in float32, codes and
/// scales are those of llm-compressor's `quantize_weight` or of GPTQModel's `GPTQ.quantize`, to the bit.
///
/// # Errors
///
/// Only libtorch's.
pub fn quantize_weight(
    weight: &Tensor,
    hessian: &Tensor,
    options: &kinds::Gptq,
) -> Result<Solved, QuantizeError> {
    let grid = Grid::of(options);
    let hessian = hessian.f_to_dtype(Kind::Float, false, true)?;
    let factor = Factor::of(hessian, recipe(options, &grid))?;
    Ok(solve(weight, &factor, &grid.rule(weight, &factor)?)?)
}

fn recipe(options: &kinds::Gptq, grid: &Grid) -> Recipe {
    Recipe { profile: options.profile, order: options.order(), group: grid.group, damping: options.damping() }
}
