//! Which tensors are quantized: the seven linear layers of every decoder block. Embeddings, norms and
//! `lm_head` are not.

use tch::Kind;

use crate::model::decoder::block_name;
use crate::model::{Checkpoint, ModelError};

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
    let shapes = [
        ("self_attn.q_proj", queries, hidden),
        ("self_attn.k_proj", keys, hidden),
        ("self_attn.v_proj", keys, hidden),
        ("self_attn.o_proj", hidden, queries),
        ("mlp.gate_proj", inner, hidden),
        ("mlp.up_proj", inner, hidden),
        ("mlp.down_proj", hidden, inner),
    ];
    let mut layers = Vec::with_capacity(config.layers * shapes.len());
    for block in 0..config.layers {
        for (part, out_features, in_features) in shapes {
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
