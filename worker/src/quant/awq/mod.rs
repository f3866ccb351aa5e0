//! AWQ (Lin et al., 2023, arXiv 2306.00978): activation-aware scales, then clipped ranges, then 4-bit codes in groups.
//!
//! ```text
//! calibration ─► scales (four inputs a block) ─► scaled weights, norms, producers ─► clip ─► grid ─► format
//! ```
//!
//! Inputs are scaled where something in front of them can take the scale: the norms (q, k, v; gate, up), v for o
//! where there are as many value heads as heads, up for down. Every input is searched on the weights as they came;
//! all scales are applied together, so that each weight is rounded to its 16-bit type once.

mod clip;
mod grid;
mod scales;

use qpipe_kernels::packing;
use qpipe_nodes::kinds::{self, AwqFormat};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::error::QuantizeError;
use super::layers::{Layer, check_float16_scales};
use super::method::{Block, FLOAT_ACTIVATIONS, Linear, Method, Quantized};
use crate::calibrate::Statistics;
use crate::context::{Context, Facts};
use crate::error::ActionError;
use crate::model::Checkpoint;
use crate::model::block::{INPUTS, Part, PartInput, Source};
use crate::model::decoder::HEAD;
use crate::model::formats::awq;
use crate::model::formats::compressed_tensors::{self, StoredScheme};

use grid::{BITS, Grid};

/// Whether the ranges of `part` are clipped: not those of q and k, whose product magnifies what clipping loses.
fn is_clipped(part: Part) -> bool {
    !matches!(part, Part::Query | Part::Key)
}

/// The method `awq`, ready for a model.
#[derive(Debug)]
pub(super) struct Awq {
    options: kinds::Awq,
    statistics: Statistics,
    grid: Grid,
}

impl Awq {
    /// Opens the calibration.
    pub(super) fn new(
        options: &kinds::Awq,
        context: &Context<'_>,
        checkpoint: &Checkpoint,
    ) -> Result<Self, ActionError> {
        let kind = match options.format() {
            AwqFormat::Awq => Some(Kind::Half),
            AwqFormat::PackQuantized => None,
        };
        let grid = Grid { group: i64::from(options.group_size), symmetric: options.symmetric, kind };
        let statistics = Statistics::open(context.input("calibration")?)?;
        statistics.check_fits(&checkpoint.config)?;
        Ok(Self { options: options.clone(), statistics, grid })
    }

    /// The scales of `input`; `None` where its source cannot take them.
    fn search(
        &self,
        weights: &[Tensor],
        block: &Block,
        input: &PartInput,
    ) -> Result<Option<scales::Found>, QuantizeError> {
        let first = &block.linear(input.first).layer;
        if let Source::Linear(part) = input.source
            && block.linear(part).layer.out_features != first.in_features
        {
            return Ok(None);
        }
        let weights: Vec<Tensor> =
            input.parts.iter().map(|part| weights[part.place()].shallow_clone()).collect();
        let device = weights[0].device();
        let magnitude = self.statistics.ranges(&first.name)?.mean_magnitude.f_to_device(device)?;
        let moments = self.moments(first, device)?;
        let found = scales::search(&weights, &magnitude, &moments, self.grid, self.options.duo_scaling)?;
        Ok(Some(found))
    }

    /// The sum of x xᵀ of the input of `layer`, f32 [K, K].
    fn moments(&self, layer: &Layer, device: tch::Device) -> Result<Tensor, QuantizeError> {
        let moments = self.statistics.moments(&layer.name)?.f_to_device(device)?;
        if moments.size() == [layer.in_features, layer.in_features] {
            return Ok(moments);
        }
        Err(QuantizeError::Calibration {
            linear: layer.name.clone(),
            expected: layer.in_features,
            found: moments.size()[0],
        })
    }

    /// The tensors of `linear`, whose weight is in its final form.
    fn store(&self, linear: &Linear) -> Result<Vec<(String, Tensor)>, QuantizeError> {
        let rounded = self.grid.round(&linear.weight)?;
        let name = &linear.layer.name;
        Ok(match self.options.format() {
            AwqFormat::Awq => {
                check_float16_scales(&linear.layer, &rounded.scale, awq::METHOD)?;
                awq::store(name, &rounded.codes, &rounded.scale, &rounded.zero)?
            }
            AwqFormat::PackQuantized => {
                let signed = |codes: &Tensor| codes.f_to_kind(Kind::Int8)?.f_sub_scalar(packing::OFFSET);
                let codes = signed(&rounded.codes)?;
                let mut stored = compressed_tensors::store(name, self.stored(), &codes, rounded.scale)?;
                if !self.grid.symmetric {
                    stored.push(compressed_tensors::store_zeros(name, &rounded.zero, BITS)?);
                }
                stored
            }
        })
    }

    /// The scheme of `pack-quantized`.
    fn stored(&self) -> StoredScheme {
        let group = Some(self.grid.group);
        StoredScheme::WeightOnly { bits: BITS, group, asym: !self.grid.symmetric }
    }
}

/// What an input is divided by, and what was found out about it.
struct Scaled {
    input: PartInput,
    scales: Tensor,
}

impl Method for Awq {
    fn check(&self, layer: &Layer) -> Result<(), QuantizeError> {
        if layer.in_features % self.grid.group != 0 {
            return Err(QuantizeError::Group {
                tensor: layer.weight.clone(),
                in_features: layer.in_features,
                group: self.grid.group,
                fitting: Vec::new(),
            });
        }
        if self.options.format() == AwqFormat::Awq && layer.out_features % awq::PER_WORD != 0 {
            return Err(QuantizeError::Channels {
                tensor: layer.weight.clone(),
                out_features: layer.out_features,
                multiple: awq::PER_WORD,
            });
        }
        Ok(())
    }

    fn quantize(&mut self, mut block: Block) -> Result<Quantized, QuantizeError> {
        let mut quantized = Quantized::default();
        let mut weights = block
            .linears
            .iter()
            .map(|linear| linear.weight.f_to_kind(Kind::Float))
            .collect::<Result<Vec<_>, _>>()?;
        let mut scaled = Vec::new();
        for input in INPUTS {
            let Some(found) = self.search(&weights, &block, &input)? else { continue };
            let name = block.linear(input.first).layer.name.clone();
            quantized.notes.insert(
                name,
                json!({ "ratio": found.ratio, "loss": found.loss.1, "loss_of_rounding": found.loss.0 }),
            );
            scaled.push(Scaled { input, scales: found.scales });
        }
        for Scaled { input, scales } in &scaled {
            for part in input.parts {
                weights[part.place()] = &weights[part.place()] * scales;
            }
            let vector = match input.source {
                Source::Norm(norm) => block.vector(norm, "weight"),
                Source::Linear(part) => {
                    weights[part.place()] = &weights[part.place()] / scales.f_unsqueeze(-1)?;
                    block.vector(part.name(), "bias")
                }
            };
            if let Some((name, vector)) = vector {
                quantized.tensors.push((name.to_owned(), (vector / scales).f_to_kind(vector.kind())?));
            }
        }
        for ((part, linear), weight) in Part::ALL.into_iter().zip(&mut block.linears).zip(weights) {
            linear.weight = weight.f_to_kind(linear.layer.kind)?;
            if self.options.clip && is_clipped(part) {
                let mut moments = self.moments(&linear.layer, weight.device())?;
                if let Some(Scaled { scales, .. }) =
                    scaled.iter().find(|scaled| scaled.input.parts.contains(&part))
                {
                    moments = moments / scales / scales.f_unsqueeze(-1)?;
                }
                let limited = clip::clipped(&linear.weight.f_to_kind(Kind::Float)?, &moments, self.grid)?;
                linear.weight = limited.f_to_kind(linear.layer.kind)?;
            }
            quantized.tensors.extend(self.store(linear)?);
        }
        Ok(quantized)
    }

    fn config(&self) -> Value {
        match self.options.format() {
            AwqFormat::Awq => awq::describe(self.grid.group),
            AwqFormat::PackQuantized => compressed_tensors::describe(self.stored(), &[HEAD]),
        }
    }

    fn facts(&self) -> Facts {
        let options = &self.options;
        Facts::from([
            ("bits".to_owned(), json!(options.bits)),
            ("group_size".to_owned(), json!(options.group_size)),
            ("symmetric".to_owned(), json!(options.symmetric)),
            ("duo_scaling".to_owned(), json!(options.duo_scaling)),
            ("clip".to_owned(), json!(options.clip)),
            ("format".to_owned(), json!(options.format())),
            ("rounding".to_owned(), json!("nearest, half to even, of scaled and clipped weights")),
            ("scale".to_owned(), json!(self.grid.scale_rule())),
            ("activations".to_owned(), json!(FLOAT_ACTIVATIONS)),
            ("samples".to_owned(), json!(self.statistics.samples())),
            ("tokens".to_owned(), json!(self.statistics.summary().tokens)),
        ])
    }
}
