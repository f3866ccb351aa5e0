//! SmoothQuant (Xiao et al., 2022, arXiv 2211.10438): the inputs of q, k, v and of gate, up are divided by a scale a
//! channel, which goes into the norm before them, and their weights are multiplied by it; then all seven linear
//! layers of a block are rounded for int8 activations.
//!
//! ```text
//! calibration ─► scales (llmc, mit; alpha given, or from search) ─► smoothed block ─► target (codes, format)
//! ```
//!
//! llm-compressor measures a block's inputs with the blocks before it smoothed already. Smoothing does not change
//! what the model computes, so here one measurement of the unsmoothed model serves every alpha; all that differs is
//! that smoothed weights are rounded to their 16-bit type.

mod scales;
mod search;
mod target;

use qpipe_nodes::kinds::{self, Alpha, ColumnOrder, GptqProfile, WeightRounding};
use serde_json::{Value, json};
use tch::Tensor;

use super::error::QuantizeError;
use super::gptq::{Factor, Recipe};
use super::layers::{self, Layer};
use super::method::{Block, Linear, Method, Quantized};
use crate::calibrate::{Ranges, Statistics};
use crate::context::{Context, Facts};
use crate::error::ActionError;
use crate::model::Checkpoint;
use crate::model::block::{INPUTS, Source};

pub use scales::{scales, smooth_norm, smooth_weight};

use target::Target;

/// The method `smoothquant`, ready for a model.
#[derive(Debug)]
pub(super) struct Smoothquant {
    options: kinds::Smoothquant,
    statistics: Statistics,
    alpha: f64,
    target: Target,
}

impl Smoothquant {
    /// Opens the calibration and, where the options ask for it, searches alpha.
    pub(super) fn new(
        options: &kinds::Smoothquant,
        context: &Context<'_>,
        checkpoint: &Checkpoint,
    ) -> Result<Self, ActionError> {
        let statistics = Statistics::open(context.input("calibration")?)?;
        statistics.check_fits(&checkpoint.config)?;
        let target = Target::of(options);
        layers::check(&layers::of_blocks(checkpoint)?, |layer| target.check(layer))?;
        let alpha = match options.alpha {
            Alpha::Given(alpha) => alpha,
            Alpha::Search => search::best(options.scale_rule, target, &statistics, checkpoint, context)?,
        };
        Ok(Self { options: options.clone(), statistics, alpha, target })
    }

    /// What calibration saw of the input of `layer`, on the device of its weight.
    fn ranges(&self, layer: &Layer, weight: &Tensor) -> Result<Ranges, QuantizeError> {
        let Ranges { absmax, min, max, mean_magnitude } = self.statistics.ranges(&layer.name)?;
        if absmax.size() != [layer.in_features] {
            return Err(QuantizeError::Calibration {
                linear: layer.name.clone(),
                expected: layer.in_features,
                found: absmax.numel() as i64,
            });
        }
        let moved = |tensor: Tensor| tensor.f_to_device(weight.device());
        Ok(Ranges {
            absmax: moved(absmax)?,
            min: moved(min)?,
            max: moved(max)?,
            mean_magnitude: moved(mean_magnitude)?,
        })
    }

    /// Where the options ask for GPTQ: its triangle for the input of `linear`, divided by `smoothing`, f32 `[K]`.
    fn factor(&self, linear: &Linear, smoothing: Option<&Tensor>) -> Result<Option<Factor>, QuantizeError> {
        let Some(damping) = self.options.gptq_damping() else { return Ok(None) };
        let mut hessian = self.statistics.moments(&linear.layer.name)?.f_to_device(linear.weight.device())?;
        let _ = hessian.f_mul_scalar_(2.0 / self.statistics.samples().max(1) as f64)?;
        if let Some(scales) = smoothing {
            let scales = scales.f_to_kind(tch::Kind::Float)?;
            let _ = hessian.f_div_(&scales)?.f_div_(&scales.f_unsqueeze(-1)?)?;
        }
        let recipe = Recipe {
            profile: GptqProfile::Llmc,
            order: ColumnOrder::Weight,
            group: self.options.group().map(i64::from),
            damping,
        };
        Ok(Some(Factor::of(hessian, recipe)?))
    }
}

impl Method for Smoothquant {
    fn check(&self, layer: &Layer) -> Result<(), QuantizeError> {
        self.target.check(layer)
    }

    fn quantize(&mut self, mut block: Block) -> Result<Quantized, QuantizeError> {
        let mut quantized = Quantized::default();
        for input in INPUTS {
            let first = block.linear(input.first);
            let ranges = self.ranges(&first.layer, &first.weight)?;
            let mut largest = ranges.absmax.shallow_clone();
            let mut smoothing = None;
            if let Source::Norm(norm) = input.source {
                let weights: Vec<&Tensor> =
                    input.parts.iter().map(|&part| &block.linear(part).weight).collect();
                let scales =
                    scales(self.options.scale_rule, (&ranges.min, &ranges.max), &weights, self.alpha)?;
                for part in input.parts {
                    let linear = &mut block.linears[part.place()];
                    linear.weight = smooth_weight(&linear.weight, &scales)?;
                }
                if let Some((name, weight)) = block.vector(norm, "weight") {
                    quantized.tensors.push((name.to_owned(), smooth_norm(weight, &scales)?));
                }
                largest /= &scales;
                smoothing = Some(scales);
            }
            let factor = self.factor(block.linear(input.first), smoothing.as_ref())?;
            for linear in input.parts.iter().map(|&part| block.linear(part)) {
                let stored = self.target.store(linear, &largest, factor.as_ref())?;
                quantized.tensors.extend(stored.tensors);
                if let (Some(factor), Some(loss)) = (&factor, stored.loss) {
                    let tokens = self.statistics.tokens(&linear.layer.name)?;
                    quantized.notes.insert(linear.layer.name.clone(), factor.note(loss, tokens));
                }
            }
        }
        Ok(quantized)
    }

    fn config(&self) -> Value {
        self.target.config()
    }

    fn facts(&self) -> Facts {
        let options = &self.options;
        let rounding = match options.rounding {
            WeightRounding::Rtn => "nearest, half to even",
            WeightRounding::Gptq => "GPTQ of the smoothed weights, half to even",
        };
        Facts::from([
            ("scheme".to_owned(), json!(options.scheme)),
            ("group_size".to_owned(), json!(options.group())),
            ("alpha".to_owned(), json!(self.alpha)),
            ("alpha_searched".to_owned(), json!(options.alpha == Alpha::Search)),
            ("scale_rule".to_owned(), json!(options.scale_rule)),
            ("rounding".to_owned(), json!(rounding)),
            ("damping".to_owned(), json!(options.gptq_damping())),
            ("scale".to_owned(), json!(self.target.scale_rule())),
            ("activations".to_owned(), json!(self.target.activation_rule())),
            ("samples".to_owned(), json!(self.statistics.samples())),
            ("tokens".to_owned(), json!(self.statistics.summary().tokens)),
        ])
    }
}
