//! The artifact of `calibrate`.
//!
//! ```text
//! statistics.json              what was measured on how many tokens; which linear layers share an input
//! samples.safetensors          ids i32 [tokens], lengths i32 [samples]: the samples in their order
//! block-00000.safetensors      what was measured of the inputs in block 0, see [`super::measured`]
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_nodes::kinds::Extent;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::accumulate::Accumulator;
use super::error::CalibrateError;
use super::measured::MeasuredFile;
use super::moments;
use crate::model::block::INPUTS;
use crate::model::{Config, TensorFiles, save};

/// Raised when a reader of the former layout would misread it.
const FORMAT: u32 = 1;
const SUMMARY: &str = "statistics.json";
const SAMPLES: &str = "samples.safetensors";

/// What a linear layer was given, over all tokens: f32 `[K]` each.
#[derive(Debug)]
pub struct Ranges {
    /// Largest |x|.
    pub absmax: Tensor,
    /// Smallest x.
    pub min: Tensor,
    /// Largest x.
    pub max: Tensor,
    /// Mean of |x|.
    pub mean_magnitude: Tensor,
}

/// statistics.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Of the layout.
    pub format: u32,
    /// How much was measured.
    pub statistics: Extent,
    /// Sequences.
    pub samples: u64,
    /// Tokens of all sequences.
    pub tokens: u64,
    /// Sequences that were longer than the limit.
    pub cut: u64,
    /// The inputs, block by block.
    pub inputs: Vec<InputSummary>,
}

/// An input of linear layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSummary {
    /// Full names of the layers that share it.
    pub linears: Vec<String>,
    /// K.
    pub channels: i64,
    /// Channels that are zero for every token.
    pub dead: i64,
    /// Tokens that were measured.
    pub tokens: u64,
    /// The file in the artifact.
    pub file: String,
}

impl Summary {
    /// Of samples on which nothing is measured yet.
    pub fn new(statistics: Extent, samples: u64, tokens: u64, cut: u64) -> Self {
        Self { format: FORMAT, statistics, samples, tokens, cut, inputs: Vec::new() }
    }

    /// Adds the inputs of block `index`, whose file is in `folder`.
    pub fn add_block(&mut self, folder: &Path, index: usize) -> Result<(), CalibrateError> {
        let name = block_file(index);
        let file = MeasuredFile::open(&folder.join(&name))?;
        for input in INPUTS {
            let linears: Vec<String> = input.parts.iter().map(|part| part.full_name(index)).collect();
            let (minimum, maximum) =
                (file.figure(&linears[0], "minimum", None)?, file.figure(&linears[0], "maximum", None)?);
            let dead = (minimum.f_eq(0)?).f_logical_and(&maximum.f_eq(0)?)?.f_sum(Kind::Int64)?;
            self.inputs.push(InputSummary {
                channels: minimum.size()[0],
                dead: i64::try_from(dead)?,
                tokens: file.tokens(&linears[0])?,
                linears,
                file: name.clone(),
            });
        }
        Ok(())
    }

    /// Writes it into `folder`.
    pub fn write(&self, folder: &Path) -> Result<(), CalibrateError> {
        let text = serde_json::to_string_pretty(self).map_err(std::io::Error::from)?;
        Ok(fs::write(folder.join(SUMMARY), text + "\n")?)
    }
}

/// The name of a block's file.
pub fn block_file(index: usize) -> String {
    format!("block-{index:05}.safetensors")
}

/// Writes the token ids of the samples into `folder`.
pub fn write_samples(folder: &Path, sequences: &[Vec<i64>]) -> Result<(), CalibrateError> {
    let ids: Vec<i64> = sequences.concat();
    let lengths: Vec<i64> = sequences.iter().map(|ids| ids.len() as i64).collect();
    let narrow = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_kind(Kind::Int);
    let tensors = [("ids".to_owned(), narrow(&ids)?), ("lengths".to_owned(), narrow(&lengths)?)];
    Ok(save::write_tensors(&folder.join(SAMPLES), &tensors)?)
}

/// A calibration, opened. Tensors are read when they are asked for, to the CPU.
#[derive(Debug)]
pub struct Statistics {
    folder: PathBuf,
    summary: Summary,
    /// Index into the summary's inputs, by linear layer.
    inputs: BTreeMap<String, usize>,
    files: BTreeMap<String, MeasuredFile>,
}

impl Statistics {
    /// An error unless the calibration can be of a model of this shape.
    ///
    /// # Errors
    ///
    /// [`CalibrateError::OtherModel`]; what else is wrong with the artifact.
    pub fn check_fits(&self, config: &Config) -> Result<(), CalibrateError> {
        let other = |problem: String| CalibrateError::OtherModel { problem };
        let blocks = self.summary.inputs.len() / INPUTS.len();
        // Samples alone are of any model that has their tokens.
        if self.summary.statistics != Extent::Samples && blocks != config.layers {
            return Err(other(format!("it has {blocks} layers, the model {}", config.layers)));
        }
        let highest = self.sequences()?.into_iter().flatten().max().unwrap_or(0);
        if highest >= config.vocab_size {
            let vocabulary = config.vocab_size;
            return Err(other(format!("its samples have token {highest}, the model {vocabulary} tokens")));
        }
        Ok(())
    }

    /// Opens the artifact in `folder`.
    pub fn open(folder: &Path) -> Result<Self, CalibrateError> {
        let file = folder.join(SUMMARY);
        let broken = |problem: String| CalibrateError::Broken { file: file.clone(), problem };
        let summary: Summary =
            serde_json::from_slice(&fs::read(&file)?).map_err(|error| broken(error.to_string()))?;
        if summary.format != FORMAT {
            return Err(broken(format!("is of format {}, expected {FORMAT}", summary.format)));
        }
        let mut inputs = BTreeMap::new();
        let mut files = BTreeMap::new();
        for (index, input) in summary.inputs.iter().enumerate() {
            if input.linears.is_empty() {
                return Err(broken(format!("input {index} goes to no linear layer")));
            }
            inputs.extend(input.linears.iter().map(|linear| (linear.clone(), index)));
            if !files.contains_key(&input.file) {
                files.insert(input.file.clone(), MeasuredFile::open(&folder.join(&input.file))?);
            }
        }
        Ok(Self { folder: folder.to_owned(), summary, inputs, files })
    }

    /// statistics.json.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Sequences.
    pub fn samples(&self) -> u64 {
        self.summary.samples
    }

    /// Tokens on which the input of the layer `linear` (`model.layers.0.self_attn.q_proj`) was measured.
    pub fn tokens(&self, linear: &str) -> Result<u64, CalibrateError> {
        Ok(self.input(linear, Extent::Samples)?.tokens)
    }

    /// Extremes and mean magnitude of each channel of the input of the layer `linear`.
    pub fn ranges(&self, linear: &str) -> Result<Ranges, CalibrateError> {
        let input = self.input(linear, Extent::Ranges)?;
        let (file, name) = (&self.files[&input.file], &input.linears[0]);
        let figure = |figure: &str| file.figure(name, figure, Some(input.channels));
        let (min, max, sum) = (figure("minimum")?, figure("maximum")?, figure("magnitude")?);
        Ok(Ranges {
            absmax: min.f_abs()?.f_maximum(&max.f_abs()?)?,
            min,
            max,
            mean_magnitude: (sum / input.tokens as f64).f_to_kind(Kind::Float)?,
        })
    }

    /// The sum over all tokens of x xᵀ, not divided: f32 [K, K], of the input of the layer `linear`.
    pub fn moments(&self, linear: &str) -> Result<Tensor, CalibrateError> {
        let input = self.input(linear, Extent::Moments)?;
        let packed = self.files[&input.file].packed(&input.linears[0], input.channels)?;
        Ok(moments::unpack(&packed, input.channels)?)
    }

    /// Token ids of the samples, in their order.
    pub fn sequences(&self) -> Result<Vec<Vec<i64>>, CalibrateError> {
        let path = self.folder.join(SAMPLES);
        let file = TensorFiles::open(&path)?;
        let read = |name: &str| -> Result<Vec<i64>, CalibrateError> {
            Ok(Vec::<i64>::try_from(file.tensor(name)?.f_to_kind(Kind::Int64)?)?)
        };
        let (ids, lengths) = (read("ids")?, read("lengths")?);
        let mut rest = ids.as_slice();
        let mut sequences = Vec::with_capacity(lengths.len());
        for length in lengths {
            let Some((sequence, behind)) = rest.split_at_checked(length as usize) else {
                let problem = "has fewer tokens than its lengths say".to_owned();
                return Err(CalibrateError::Broken { file: path, problem });
            };
            sequences.push(sequence.to_vec());
            rest = behind;
        }
        Ok(sequences)
    }

    /// The running measurements of block `index`, to go on with on `device`; no more than `extent` of them.
    pub fn accumulators(
        &self,
        index: usize,
        extent: Extent,
        device: Device,
    ) -> Result<Vec<Accumulator>, CalibrateError> {
        let input = self.input(&INPUTS[0].first.full_name(index), extent)?;
        self.files[&input.file].block(index, extent, device)
    }

    fn input(&self, linear: &str, wanted: Extent) -> Result<&InputSummary, CalibrateError> {
        let unknown =
            || CalibrateError::UnknownLinear { path: self.folder.clone(), linear: linear.to_owned() };
        if self.summary.statistics < wanted || self.summary.statistics == Extent::Samples {
            let wanted = if wanted == Extent::Moments { "moments" } else { "ranges" };
            return Err(CalibrateError::NotMeasured { path: self.folder.clone(), wanted });
        }
        let index = self.inputs.get(linear).ok_or_else(unknown)?;
        self.summary.inputs.get(*index).ok_or_else(unknown)
    }
}
