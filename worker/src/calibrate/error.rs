//! Why a model was not calibrated, or a calibration cannot be read.

use std::path::PathBuf;

use qpipe_nodes::protocol::Failure;
use thiserror::Error;

use crate::data::DataError;
use crate::error::ActionError;
use crate::model::ModelError;

/// Why a model was not calibrated, or a calibration cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// The calibration is of a model of another shape.
    #[error("the calibration is of another model: {problem}")]
    OtherModel {
        /// In what they differ.
        problem: String,
    },
    /// The data cannot be made into text.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Fewer rows than samples.
    #[error("{asked} samples are asked for, and `{}` has {found} rows that are not empty", path.display())]
    TooFew {
        /// `samples`.
        asked: usize,
        /// Rows that make a sample.
        found: usize,
        /// The data.
        path: PathBuf,
    },
    /// The model's weights are codes already.
    #[error("the model in `{}` is quantized", path.display())]
    Quantized {
        /// The checkpoint.
        path: PathBuf,
    },
    /// A NaN or an infinity would spoil every figure that it is added to.
    #[error("the input of `{linear}` is not finite in the sample from {place}")]
    NotFinite {
        /// The first linear layer that is given such a value.
        linear: String,
        /// The row: `train.jsonl, line 3`.
        place: String,
    },
    /// A calibration has no entry for a linear layer.
    #[error("the calibration in `{}` does not know the linear layer `{linear}`", path.display())]
    UnknownLinear {
        /// The artifact.
        path: PathBuf,
        /// Its full name.
        linear: String,
    },
    /// A calibration was made with less than what is read of it.
    #[error("the calibration in `{}` holds no {wanted}", path.display())]
    NotMeasured {
        /// The artifact.
        path: PathBuf,
        /// `ranges` or `moments`.
        wanted: &'static str,
    },
    /// A file of a calibration is not what it should be.
    #[error("`{}`: {problem}", file.display())]
    Broken {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The checkpoint, the tokenizer, or a safetensors file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
    /// A file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<CalibrateError> for ActionError {
    fn from(error: CalibrateError) -> Self {
        let message = error.to_string();
        match error {
            CalibrateError::Data(error) => error.into(),
            CalibrateError::Model(error) => error.into(),
            CalibrateError::Torch(error) => error.into(),
            CalibrateError::Io(error) => error.into(),
            CalibrateError::TooFew { found: 0, .. } => Self::user(message),
            CalibrateError::TooFew { found, .. } => {
                Self::user(message).help(format!("Set `samples` to {found} or less, or add rows."))
            }
            CalibrateError::Quantized { .. } => {
                Self::user(message).help("Calibrate the 16- or 32-bit model that it was made from.")
            }
            CalibrateError::NotFinite { .. } => Self::new(Failure::Deterministic, message)
                .help("The model overflows or is broken: look at how it was trained or converted."),
            CalibrateError::OtherModel { .. } | CalibrateError::UnknownLinear { .. } => {
                Self::user(message).help("Calibrate the model that is quantized.")
            }
            CalibrateError::NotMeasured { wanted, .. } => Self::user(message)
                .help(format!("Set `statistics: {wanted}` of the `calibrate` node, or leave it out.")),
            CalibrateError::Broken { .. } => Self::new(Failure::Surroundings, message),
        }
    }
}
