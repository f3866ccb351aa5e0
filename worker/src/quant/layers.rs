//! Which tensors methods quantize: the seven linear layers of every decoder block. Norms are not; the embedding and
//! `lm_head` are [`super::outside`]'s.

use tch::{Kind, Tensor};

use super::error::QuantizeError;
use crate::finite::{count_not_finite, is_finite};
use crate::model::block::Part;
use crate::model::{Checkpoint, ModelError};

/// The usual sizes of groups, the largest first.
const GROUPS: [i64; 3] = [128, 64, 32];

/// A linear layer's weight in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// `model.layers.0.self_attn.q_proj`.
    pub(super) name: String,
    /// Its tensor.
    pub(super) weight: String,
    /// N.
    pub(super) out_features: i64,
    /// K.
    pub(super) in_features: i64,
    /// The type of the weights, and so of the scales.
    pub(super) kind: Kind,
}

/// Has every layer checked. Where a group does not fit one, the error says which groups fit all.
pub(super) fn check(
    layers: &[Layer],
    check: impl Fn(&Layer) -> Result<(), QuantizeError>,
) -> Result<(), QuantizeError> {
    layers.iter().try_for_each(check).map_err(|mut error| {
        if let QuantizeError::Group { fitting, .. } = &mut error {
            let fits_all = |group: &i64| layers.iter().all(|layer| layer.in_features % group == 0);
            *fitting = GROUPS.into_iter().filter(fits_all).collect();
        }
        error
    })
}

/// An error if a value of `tensor`, called `name`, is a NaN or an infinity.
pub(super) fn check_finite(name: &str, tensor: &Tensor) -> Result<(), QuantizeError> {
    match count_not_finite(tensor)? {
        0 => Ok(()),
        count => Err(QuantizeError::NotFinite { tensor: name.to_owned(), count }),
    }
}

/// An error if a scale of `layer` becomes an infinity in float16, the type of scales in `format`.
pub(super) fn check_float16_scales(
    layer: &Layer,
    scale: &Tensor,
    format: &'static str,
) -> Result<(), QuantizeError> {
    if is_finite(&scale.f_to_kind(Kind::Half)?)? {
        return Ok(());
    }
    Err(QuantizeError::ScaleBeyondFloat16 { tensor: layer.weight.clone(), format })
}

/// The layers of all blocks, block by block, each checked to be a floating-point matrix of the shape that
/// config.json calls for.
pub(super) fn of_blocks(checkpoint: &Checkpoint) -> Result<Vec<Layer>, ModelError> {
    let config = &checkpoint.config;
    let mut layers = Vec::with_capacity(config.layers * Part::ALL.len());
    for block in 0..config.layers {
        for part in Part::ALL {
            let ([out_features, in_features], name) = (part.shape(config), part.full_name(block));
            let weight = format!("{name}.weight");
            checkpoint.expect_shape(&weight, &[out_features, in_features])?;
            let kind = checkpoint.kind(&weight)?;
            if !matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half | Kind::Double) {
                return Err(ModelError::TensorType {
                    file: checkpoint.file_of(&weight).to_owned(),
                    tensor: weight,
                    expected: "F32, BF16, F16 or F64".to_owned(),
                    found: format!("{kind:?}"),
                });
            }
            layers.push(Layer { name, weight, out_features, in_features, kind });
        }
    }
    Ok(layers)
}
