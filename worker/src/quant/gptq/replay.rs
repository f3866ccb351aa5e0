//! Second moments of what the layers of a partly quantized model are given: `propagate: quantized`.
//!
//! All samples stand in front of a block. The block is run with its own weights and measured, its layers are
//! quantized, and the samples pass through what was stored of them. An attempt that goes on runs the finished blocks
//! from what is stored, so that its sums are those of an undisturbed one. Activations are not rounded on the way, as
//! in both references.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use qpipe_kernels::Multiplier;
use serde_json::Value;
use tch::{Device, Tensor};

use crate::calibrate::Statistics;
use crate::calibrate::batches::{Laid, grid};
use crate::calibrate::moments::Moments;
use crate::finite::is_finite;
use crate::model::block::{INPUTS, Part};
use crate::model::formats::read_weight;
use crate::model::{
    Attention, Block, BlockRunner, Checkpoint, Dense, Frame, LinearSpec, LoadOptions, TensorFiles,
};
use crate::quant::error::QuantizeError;

/// Samples on their way through a model.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    checkpoint: &'a Checkpoint,
    runner: BlockRunner<'a>,
    travellers: Vec<Traveller>,
    /// The block that the samples stand in front of, and its number.
    block: Option<(usize, Block)>,
    /// What was measured in that block: XᵀX and tokens, by the first layer that is given it.
    measured: BTreeMap<String, (Moments, u64)>,
}

/// A micro-batch of samples.
#[derive(Debug)]
struct Traveller {
    /// Their numbers, by row.
    samples: Vec<usize>,
    laid: Laid,
    frame: Frame,
    /// [B, T, hidden].
    hidden: Tensor,
}

impl<'a> Replay<'a> {
    /// Embeds the samples of a calibration.
    pub(super) fn open(
        statistics: &Statistics,
        checkpoint: &'a Checkpoint,
        device: Device,
    ) -> Result<Self, QuantizeError> {
        let runner = BlockRunner::new(checkpoint, LoadOptions::inference(device, None))?;
        let sequences = statistics.sequences()?;
        let travellers = grid(&sequences)
            .iter()
            .map(|batch| {
                let laid = batch.lay(&sequences, device)?;
                let frame = runner.frame(&laid.positions, &Attention::Causal);
                let samples = batch.samples.clone();
                Ok(Traveller { samples, hidden: runner.embed(&laid.ids)?, laid, frame })
            })
            .collect::<Result<_, QuantizeError>>()?;
        Ok(Self { checkpoint, runner, travellers, block: None, measured: BTreeMap::new() })
    }

    /// Measures the inputs number `inputs` of the block that is next, with what has been replaced in it.
    pub(super) fn measure(&mut self, inputs: Range<usize>) -> Result<(), QuantizeError> {
        if self.block.is_none() {
            self.block = Some((0, self.runner.load_block(0)?));
        }
        let Some((index, block)) = &self.block else { return Ok(()) };
        let mut sums: BTreeMap<Part, (Moments, u64)> = BTreeMap::new();
        for traveller in &self.travellers {
            let mut outcome = Ok(());
            let hidden = traveller.hidden.shallow_clone();
            let _ = self.runner.forward(block, hidden, &traveller.frame, &mut |part, input| {
                let is_wanted = INPUTS[inputs.clone()].iter().any(|input| input.first == part);
                if is_wanted && outcome.is_ok() {
                    outcome = add(&mut sums, (*index, part), (&traveller.laid, &traveller.samples), input);
                }
            });
            outcome?;
        }
        self.measured.extend(sums.into_iter().map(|(part, sum)| (part.full_name(*index), sum)));
        Ok(())
    }

    /// XᵀX of the input that `linear` is the first to be given, f32 [K, K] on the CPU, and how many tokens are in it.
    pub(super) fn moments(&self, linear: &str) -> Result<(Tensor, u64), QuantizeError> {
        let (moments, tokens) = self
            .measured
            .get(linear)
            .ok_or_else(|| QuantizeError::NotMeasured { linear: linear.to_owned() })?;
        Ok((moments.full()?, *tokens))
    }

    /// From now on the block is run with `weight`, [N, K], in the layer `linear`.
    pub(super) fn replace(&mut self, linear: &str, weight: &Tensor) -> Result<(), QuantizeError> {
        let Some((index, block)) = &mut self.block else { return Ok(()) };
        let kind = self.runner.kind();
        for (part, layer) in block.linears_mut() {
            if part.full_name(*index) == linear {
                let bias = layer.dense().and_then(|dense| dense.bias.as_ref()).map(Tensor::shallow_clone);
                *layer = Box::new(Dense::new(weight.f_to_kind(kind)?, bias, Multiplier::Libtorch));
            }
        }
        Ok(())
    }

    /// Takes the samples through block `index`, of which `tensors` is stored under `config`.
    pub(super) fn pass(
        &mut self,
        index: usize,
        config: &Value,
        tensors: TensorFiles,
    ) -> Result<(), QuantizeError> {
        self.measured.clear();
        let mut block = match self.block.take() {
            Some((_, block)) => block,
            None => self.runner.load_block(index)?,
        };
        let kind = self.runner.kind();
        let stored = self.checkpoint.quantized_as(config.clone(), tensors);
        for (part, layer) in block.linears_mut() {
            let name = part.full_name(index);
            let spec = LinearSpec {
                name: &name,
                in_features: layer.in_features(),
                out_features: layer.out_features(),
                bias: false,
            };
            let bias = layer.dense().and_then(|dense| dense.bias.as_ref()).map(Tensor::shallow_clone);
            if let Some(weight) = read_weight(&stored, &spec)? {
                let weight = weight.value(kind)?.f_to_device(self.travellers_device())?;
                *layer = Box::new(Dense::new(weight, bias, Multiplier::Libtorch));
            }
        }
        for traveller in &mut self.travellers {
            let hidden = std::mem::take(&mut traveller.hidden);
            traveller.hidden = self.runner.forward(&block, hidden, &traveller.frame, &mut |_, _| {});
        }
        drop(block);
        if index + 1 < self.runner.blocks() {
            self.block = Some((index + 1, self.runner.load_block(index + 1)?));
        }
        Ok(())
    }

    fn travellers_device(&self) -> Device {
        self.travellers.first().map_or(Device::Cpu, |traveller| traveller.laid.ids.device())
    }
}

/// Adds the tokens of `input` to the sum of `part`, a layer of block `index`. The rows of `laid` are the `samples`.
fn add(
    sums: &mut BTreeMap<Part, (Moments, u64)>,
    (index, part): (usize, Part),
    (laid, samples): (&Laid, &[usize]),
    input: &Tensor,
) -> Result<(), QuantizeError> {
    let tokens = laid.tokens_of(input)?;
    let (count, channels) = tokens.size2()?;
    if !is_finite(&tokens)? {
        let row = laid.first_not_finite(input)?.unwrap_or_default();
        let sample = samples.get(row).map_or(0, |sample| sample + 1);
        return Err(QuantizeError::InputNotFinite { linear: part.full_name(index), sample });
    }
    let (moments, seen) = match sums.entry(part) {
        Entry::Occupied(sum) => sum.into_mut(),
        Entry::Vacant(place) => place.insert((Moments::new(channels, input.device())?, 0)),
    };
    moments.add(&tokens)?;
    *seen += count as u64;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn an_input_that_is_not_finite_is_named_with_its_block_and_sample() {
        // The longest stands first.
        let sequences = [vec![1], vec![1, 2], vec![1, 2, 3]];
        let [batch] = &grid(&sequences)[..] else { panic!("they are one batch") };
        let laid = batch.lay(&sequences, Device::Cpu).unwrap();
        let input = Tensor::zeros([3, 3, 4], (Kind::Float, Device::Cpu));
        let mut sums = BTreeMap::new();
        let part = Part::Down;
        add(&mut sums, (5, part), (&laid, &batch.samples), &input).unwrap();
        assert_eq!(sums[&part].1, 6);
        let _ = input.get(1).get(1).fill_(f64::INFINITY);
        let error = add(&mut sums, (5, part), (&laid, &batch.samples), &input).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the input of `model.layers.5.mlp.down_proj`, behind the quantized layers, is not finite in sample 2 of the \
             calibration"
        );
        assert_eq!(sums[&part].1, 6, "nothing was added");
    }
}
