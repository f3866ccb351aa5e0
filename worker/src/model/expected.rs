//! The tensors that a checkpoint of a given config.json has.

use super::checkpoint::Checkpoint;
use super::config::Config;
use super::decoder::{EMBEDDING, FINAL_NORM, HEAD, block_name};
use super::error::ModelError;

/// What a tensor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An embedding, or the matrix of a linear layer.
    Matrix,
    /// What a norm multiplies by.
    Norm,
    /// What a linear layer adds.
    Bias,
}

/// A tensor of a model with floating-point weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// What it does.
    pub role: Role,
}

/// All tensors of the model that `config` describes, in the order of its layers.
pub fn tensors(config: &Config) -> Vec<Expected> {
    let mut all = Vec::new();
    let mut push = |name: String, shape: &[i64], role| {
        all.push(Expected { name, shape: shape.to_vec(), role });
    };
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let (attention, output) = (config.query_key_value_bias, config.attention_output_bias);
    push(EMBEDDING.to_owned(), &[config.vocab_size, hidden], Role::Matrix);
    for layer in 0..config.layers {
        let block = block_name(layer);
        push(format!("{block}.input_layernorm.weight"), &[hidden], Role::Norm);
        if config.family.query_key_norm {
            push(format!("{block}.self_attn.q_norm.weight"), &[config.head_dim], Role::Norm);
            push(format!("{block}.self_attn.k_norm.weight"), &[config.head_dim], Role::Norm);
        }
        push(format!("{block}.post_attention_layernorm.weight"), &[hidden], Role::Norm);
        for (part, out_features, in_features, bias) in [
            ("self_attn.q_proj", queries, hidden, attention),
            ("self_attn.k_proj", keys, hidden, attention),
            ("self_attn.v_proj", keys, hidden, attention),
            ("self_attn.o_proj", hidden, queries, output),
            ("mlp.gate_proj", inner, hidden, config.mlp_bias),
            ("mlp.up_proj", inner, hidden, config.mlp_bias),
            ("mlp.down_proj", hidden, inner, config.mlp_bias),
        ] {
            push(format!("{block}.{part}.weight"), &[out_features, in_features], Role::Matrix);
            if bias {
                push(format!("{block}.{part}.bias"), &[out_features], Role::Bias);
            }
        }
    }
    push(FINAL_NORM.to_owned(), &[hidden], Role::Norm);
    if !config.tie_word_embeddings {
        push(format!("{HEAD}.weight"), &[config.vocab_size, hidden], Role::Matrix);
    }
    all
}

/// An error for the first tensor of a floating-point `checkpoint` that is missing or of another shape than its config.json
/// calls for.
///
/// # Errors
///
/// As said; it names the tensor.
pub fn check(checkpoint: &Checkpoint) -> Result<(), ModelError> {
    tensors(&checkpoint.config)
        .iter()
        .try_for_each(|tensor| checkpoint.expect_shape(&tensor.name, &tensor.shape))
}
