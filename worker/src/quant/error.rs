//! Why a checkpoint cannot be quantized.

use qpipe_nodes::protocol::Failure;

use crate::calibrate::CalibrateError;
use crate::error::ActionError;
use crate::model::ModelError;

/// See the module's documentation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// Codes of codes are of no use.
    #[error("the model is already quantized (`{method}`)")]
    AlreadyQuantized {
        /// `quant_method` of its config.json.
        method: String,
    },
    /// The last group would be shorter than the others, for which the format has no place.
    #[error(
        "tensor `{tensor}` has {in_features} input channels, which are not a multiple of the group size {group}"
    )]
    Group {
        /// The weight.
        tensor: String,
        /// K.
        in_features: i64,
        /// Input channels that share a scale.
        group: i64,
        /// The usual groups that fit all layers.
        fitting: Vec<i64>,
    },
    /// The output channels do not fill the format's words.
    #[error("tensor `{tensor}` has {out_features} output channels, which are not a multiple of {multiple}")]
    Channels {
        /// The weight.
        tensor: String,
        /// N.
        out_features: i64,
        /// What N must be a multiple of.
        multiple: i64,
    },
    /// The input channels do not fill the format's words.
    #[error("tensor `{tensor}` has {in_features} input channels, which are not a multiple of {multiple}")]
    InChannels {
        /// The weight.
        tensor: String,
        /// K.
        in_features: i64,
        /// What K must be a multiple of.
        multiple: i64,
    },
    /// The quantized layers in front of this one give it values that cannot be summed.
    #[error(
        "the input of `{linear}`, behind the quantized layers, is not finite in sample {sample} of the calibration"
    )]
    InputNotFinite {
        /// The first layer that is given it.
        linear: String,
        /// From 1. A calibration does not keep where its samples came from.
        sample: usize,
    },
    /// A layer is asked for in front of which no sample came by.
    #[error("nothing was measured of the input of `{linear}`")]
    NotMeasured {
        /// The linear layer.
        linear: String,
    },
    /// The calibration is of another model.
    #[error("the calibration has {found} input channels for `{linear}`, the model {expected}")]
    Calibration {
        /// The linear layer.
        linear: String,
        /// K.
        expected: i64,
        /// In the calibration.
        found: i64,
    },
    /// A NaN or an infinity would become the scale of a whole row.
    #[error("tensor `{tensor}` has values that are not finite: {count}")]
    NotFinite {
        /// The weight.
        tensor: String,
        /// How many.
        count: i64,
    },
    /// The model has no output projection of its own.
    #[error("`lm_head: int8`: the model's output projection is its embedding (`tie_word_embeddings`)")]
    TiedHead,
    /// A matrix outside the blocks, in a format that has no place for it.
    #[error("`{option}: int8`: the format `{format}` quantizes linear layers of the blocks only")]
    Outside {
        /// `lm_head` or `embeddings`.
        option: &'static str,
        /// `quant_method`.
        format: String,
    },
    /// LLM.int8() rounds weights to float16 first.
    #[error("tensor `{tensor}` has values beyond the range of float16: {count}")]
    BeyondFloat16 {
        /// The weight.
        tensor: String,
        /// How many.
        count: i64,
    },
    /// The format has float16 scales only.
    #[error(
        "the scales of `{tensor}` are beyond the range of float16, which `format: {format}` stores them in"
    )]
    ScaleBeyondFloat16 {
        /// The weight.
        tensor: String,
        /// The format.
        format: &'static str,
    },
    /// Double quantization takes the mean of magnitudes in float32.
    #[error("the mean of the magnitudes of `{tensor}` is beyond the range of float32")]
    MeanBeyondFloat32 {
        /// The weight.
        tensor: String,
    },
    /// A type that the method has no codes for.
    #[error("tensor `{tensor}` is of type {kind:?}, which `{method}` does not quantize")]
    Type {
        /// The weight.
        tensor: String,
        /// Its type.
        kind: tch::Kind,
        /// The method.
        method: &'static str,
    },
    /// The calibration cannot be read.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// The checkpoint cannot be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

impl From<QuantizeError> for ActionError {
    fn from(error: QuantizeError) -> Self {
        match error {
            QuantizeError::Calibrate(error) => error.into(),
            QuantizeError::Model(error) => error.into(),
            QuantizeError::Torch(error) => error.into(),
            QuantizeError::AlreadyQuantized { .. } => {
                Self::user(error.to_string()).help("Quantize the 16- or 32-bit model that it was made from.")
            }
            QuantizeError::Group { ref fitting, .. } => {
                let fitting: Vec<_> = fitting.iter().map(ToString::to_string).collect();
                let advice = if fitting.is_empty() {
                    "No group fits all layers: use W8A8, or `method: gptq` with `group_size: -1`.".to_owned()
                } else {
                    format!("Set `group_size` to {}.", fitting.join(" or "))
                };
                Self::user(error.to_string()).help(advice)
            }
            QuantizeError::Channels { .. } | QuantizeError::InChannels { .. } => {
                Self::user(error.to_string()).help("Set `format: pack-quantized`.")
            }
            QuantizeError::TiedHead => {
                Self::user(error.to_string()).help("Set `embeddings: int8`: one matrix serves as both.")
            }
            QuantizeError::Outside { option, .. } => {
                Self::user(error.to_string()).help(format!("Remove `{option}`."))
            }
            QuantizeError::Calibration { .. } => {
                Self::user(error.to_string()).help("Give the `calibrate` node the same `model` as this one.")
            }
            QuantizeError::InputNotFinite { .. } => Self::new(Failure::Deterministic, error.to_string())
                .help("Set `propagate: none`, or look at the samples of the calibration."),
            QuantizeError::NotMeasured { .. } => Self::new(Failure::Deterministic, error.to_string()),
            QuantizeError::BeyondFloat16 { .. } => Self::new(Failure::Deterministic, error.to_string())
                .help("Use another method: LLM.int8() is defined in float16."),
            QuantizeError::ScaleBeyondFloat16 { .. } => Self::user(error.to_string())
                .help("Set `format: pack-quantized`: its scales are of the model's type."),
            QuantizeError::MeanBeyondFloat32 { .. } => Self::user(error.to_string())
                .help("Set `double_quant: false`, or look at how the model was trained."),
            QuantizeError::Type { .. } => {
                Self::user(error.to_string()).help("Convert the model to float32 or 16 bits first.")
            }
            QuantizeError::NotFinite { .. } => Self::new(Failure::Deterministic, error.to_string())
                .help("The model is broken: look at how it was trained or converted."),
        }
    }
}
