//! Which tensors methods quantize: the seven linear layers of every decoder block. Norms are not; the embedding and
//! `lm_head` are [`super::outside`]'s.

use tch::Kind;

use crate::model::decoder::block_name;
use crate::model::{Checkpoint, ModelError};

/// The linear layers of a block by their names in it, in the order in which they are used.
pub(super) const PARTS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

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

/// The layers of all blocks, block by block, each checked to be a floating-point matrix of the shape that
/// config.json calls for.
pub(super) fn of_blocks(checkpoint: &Checkpoint) -> Result<Vec<Layer>, ModelError> {
    let config = &checkpoint.config;
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    // N and K of each of `PARTS`.
    let shapes = [
        (queries, hidden),
        (keys, hidden),
        (keys, hidden),
        (hidden, queries),
        (inner, hidden),
        (inner, hidden),
        (hidden, inner),
    ];
    let mut layers = Vec::with_capacity(config.layers * shapes.len());
    for block in 0..config.layers {
        for (part, (out_features, in_features)) in PARTS.into_iter().zip(shapes) {
            let name = format!("{}.{part}", block_name(block));
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
