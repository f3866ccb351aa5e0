//! Running measurements of decoder blocks in a safetensors file: in the artifact, one file a block, and in units.
//!
//! ```text
//! of each input, under the full name of the first linear layer that it goes to:
//!   NAME.tokens                  i64 [1]
//!   NAME.minimum, NAME.maximum   f32 [K]
//!   NAME.magnitude               f64 [K], the sum of |x|
//!   NAME.moments                 f32 [K (K + 1) / 2], the sum of x xᵀ: entry (i, j <= i) at i (i + 1) / 2 + j
//! ```
//!
//! Sums are not divided, so that they can be gone on with, to the same bits.

use std::path::{Path, PathBuf};

use qpipe_nodes::kinds::Extent;
use tch::{Device, Kind, Tensor};

use super::accumulate::Accumulator;
use super::error::CalibrateError;
use super::moments::Moments;
use crate::model::block::INPUTS;
use crate::model::{CheckpointWriter, TensorFiles, TensorSpec};

/// The full name of the first linear layer of each of [`INPUTS`] of block `index`.
fn names(index: usize) -> impl Iterator<Item = String> {
    INPUTS.iter().map(move |input| input.first.full_name(index))
}

/// Writes the measurements of the blocks from number `first` on to one file. At no time is there more than one
/// packed copy of second moments beside them.
pub fn write(file: &Path, first: usize, blocks: &[Vec<Accumulator>]) -> Result<(), CalibrateError> {
    let inputs = || {
        let numbered = (first..).zip(blocks);
        numbered.flat_map(|(index, accumulators)| names(index).zip(accumulators))
    };
    let mut specs = Vec::new();
    for (name, accumulator) in inputs() {
        let mut announce = |figure: &str, kind: Kind, length: i64| {
            specs.push(TensorSpec { name: format!("{name}.{figure}"), kind, shape: vec![length] });
        };
        let channels = accumulator.channels();
        announce("tokens", Kind::Int64, 1);
        announce("minimum", Kind::Float, channels);
        announce("maximum", Kind::Float, channels);
        announce("magnitude", Kind::Double, channels);
        if accumulator.moments.is_some() {
            announce("moments", Kind::Float, packed_length(channels));
        }
    }
    let mut writer = CheckpointWriter::single(file, specs)?;
    for (name, accumulator) in inputs() {
        writer.put(&format!("{name}.tokens"), &Tensor::from_slice(&[accumulator.tokens as i64]))?;
        writer.put(&format!("{name}.minimum"), &accumulator.minimum)?;
        writer.put(&format!("{name}.maximum"), &accumulator.maximum)?;
        writer.put(&format!("{name}.magnitude"), &accumulator.magnitude)?;
        if let Some(moments) = &accumulator.moments {
            writer.put(&format!("{name}.moments"), &moments.packed()?)?;
        }
    }
    Ok(writer.finish()?)
}

/// A file of measurements.
#[derive(Debug)]
pub struct MeasuredFile {
    path: PathBuf,
    tensors: TensorFiles,
}

impl MeasuredFile {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Self, CalibrateError> {
        Ok(Self { path: path.to_owned(), tensors: TensorFiles::open(path)? })
    }

    /// The running measurements of block `index` to go on with on `device`, no more than `extent` of them.
    pub fn block(
        &self,
        index: usize,
        extent: Extent,
        device: Device,
    ) -> Result<Vec<Accumulator>, CalibrateError> {
        let read = |name: String| {
            let minimum = self.figure(&name, "minimum", None)?;
            let channels = minimum.size()[0];
            let figure = |figure: &str| self.figure(&name, figure, Some(channels));
            let moments = match extent {
                Extent::Moments => {
                    Some(Moments::from_packed(&self.packed(&name, channels)?, channels, device)?)
                }
                Extent::Samples | Extent::Ranges => None,
            };
            // Copies: a running measurement is written to, the file's map is not.
            let own = |tensor: Tensor| tensor.f_to_device_(device, tensor.kind(), false, true);
            Ok(Accumulator {
                tokens: self.tokens(&name)?,
                minimum: own(minimum)?,
                maximum: own(figure("maximum")?)?,
                magnitude: own(figure("magnitude")?)?,
                moments,
            })
        };
        names(index).map(read).collect()
    }

    /// Tokens of the input called `name`.
    pub fn tokens(&self, name: &str) -> Result<u64, CalibrateError> {
        let tokens = self.stored(name, "tokens", Kind::Int64, Some(1))?;
        Ok(i64::try_from(tokens.f_get(0)?)?.unsigned_abs())
    }

    /// The packed triangle of second moments of the input called `name` with so many `channels`.
    pub fn packed(&self, name: &str, channels: i64) -> Result<Tensor, CalibrateError> {
        self.stored(name, "moments", Kind::Float, Some(packed_length(channels)))
    }

    /// `minimum`, `maximum` or `magnitude` of the input called `name`, of `channels` values if that is known.
    pub fn figure(&self, name: &str, figure: &str, channels: Option<i64>) -> Result<Tensor, CalibrateError> {
        let kind = if figure == "magnitude" { Kind::Double } else { Kind::Float };
        self.stored(name, figure, kind, channels)
    }

    fn stored(
        &self,
        name: &str,
        figure: &str,
        kind: Kind,
        length: Option<i64>,
    ) -> Result<Tensor, CalibrateError> {
        let full = format!("{name}.{figure}");
        let tensor = self.tensors.tensor(&full)?;
        match tensor.size().as_slice() {
            [found] if tensor.kind() == kind && length.is_none_or(|length| length == *found) => Ok(tensor),
            size => {
                let problem =
                    format!("`{full}` is {:?} {size:?}, expected {kind:?} {length:?}", tensor.kind());
                Err(CalibrateError::Broken { file: self.path.clone(), problem })
            }
        }
    }
}

fn packed_length(channels: i64) -> i64 {
    channels * (channels + 1) / 2
}
