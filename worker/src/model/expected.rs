//! The tensors that a checkpoint of a given config.json has.

use super::block::{INPUT_NORM, MLP_NORM, Part};
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
    let hidden = config.hidden_size;
    push(EMBEDDING.to_owned(), &[config.vocab_size, hidden], Role::Matrix);
    for layer in 0..config.layers {
        let block = block_name(layer);
        push(format!("{block}.{INPUT_NORM}.weight"), &[hidden], Role::Norm);
        if config.family.query_key_norm {
            push(format!("{block}.self_attn.q_norm.weight"), &[config.head_dim], Role::Norm);
            push(format!("{block}.self_attn.k_norm.weight"), &[config.head_dim], Role::Norm);
        }
        push(format!("{block}.{MLP_NORM}.weight"), &[hidden], Role::Norm);
        for part in Part::ALL {
            push(format!("{block}.{part}.weight"), &part.shape(config), Role::Matrix);
            if part.has_bias(config) {
                push(format!("{block}.{part}.bias"), &part.shape(config)[..1], Role::Bias);
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
