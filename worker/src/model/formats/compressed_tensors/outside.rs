//! int8 matrices outside the blocks: the output projection and the embedding, with floating-point activations.
//!
//! compressed-tensors packs int8 weights without int8 activations (`pack-quantized`). That is how an output projection
//! is written. transformers 5.17 does not load an embedding in that format (it has no `weight` to look at), but one whose
//! group says `int-quantized`, a byte a weight. Of a tied embedding transformers' output projection is a layer of its own
//! that shares the tensor `weight` and no other, so its scales are written a second time.

use qpipe_kernels::QuantizedWeight;
use serde_json::{Value, json};
use tch::{TchError, Tensor};

use super::config::{QuantizationConfig, StoredScheme};
use super::describe::describe;
use super::{read, store, tensors};
use crate::model::checkpoint::Checkpoint;
use crate::model::decoder::{EMBEDDING_LAYER, HEAD};
use crate::model::error::ModelError;
use crate::model::linear::LinearSpec;

/// A matrix outside the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// The output projection, not tied.
    Head,
    /// The embedding, not tied.
    Embedding,
    /// The embedding that is the output projection too.
    Tied,
}

impl Matrix {
    /// Its name as a layer.
    pub fn layer(self) -> &'static str {
        match self {
            Self::Head => HEAD,
            Self::Embedding | Self::Tied => EMBEDDING_LAYER,
        }
    }

    fn scheme(self) -> StoredScheme {
        match self {
            Self::Head => StoredScheme::PACKED_W8A16,
            Self::Embedding | Self::Tied => StoredScheme::W8A16,
        }
    }

    fn targets(self) -> &'static [&'static str] {
        match self {
            Self::Head => &[HEAD],
            Self::Embedding => &["Embedding"],
            Self::Tied => &[HEAD, "Embedding"],
        }
    }
}

/// The tensors of `matrix`: codes i8 [N, K] and scales, floating point [N, 1].
///
/// # Errors
///
/// Only libtorch's.
pub fn store_outside(
    matrix: Matrix,
    codes: &Tensor,
    scale: Tensor,
) -> Result<Vec<(String, Tensor)>, TchError> {
    let second = (matrix == Matrix::Tied).then(|| (format!("{HEAD}.{}", tensors::SCALE), scale.copy()));
    let mut stored = store(matrix.layer(), matrix.scheme(), codes, scale)?;
    stored.extend(second);
    Ok(stored)
}

/// Adds to `config`, a `quantization_config` as [`describe`] makes it, that `matrix` is in int8.
pub fn describe_outside(config: &mut Value, matrix: Matrix) {
    let mut group = describe(matrix.scheme(), &[])["config_groups"]["group_0"].take();
    group["targets"] = json!(matrix.targets());
    if group["format"] != config["format"] {
        config["format"] = json!("mixed-precision");
    }
    if let Some(ignore) = config["ignore"].as_array_mut() {
        ignore.retain(|name| !matrix.targets().iter().any(|target| name == target));
    }
    if let Some(groups) = config["config_groups"].as_object_mut() {
        groups.insert(format!("group_{}", groups.len()), group);
    }
}

/// The embedding `spec` of `checkpoint`; `None` where `config` leaves it in floating point.
///
/// # Errors
///
/// Tensors that are missing, or whose type or shape is not what config.json calls for.
pub fn read_embedding(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    config: &QuantizationConfig,
) -> Result<Option<QuantizedWeight>, ModelError> {
    config.scheme_of_embedding(spec.name).map(|scheme| read(checkpoint, spec, scheme)).transpose()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_added_is_read_and_the_blocks_stay_what_they_are() {
        let (head, bytes) = (StoredScheme::PACKED_W8A16, StoredScheme::W8A16);
        for (blocks, format) in [
            (StoredScheme::W8A8, "int-quantized"),
            (StoredScheme::WeightOnly { bits: 4, group: Some(32), asym: false }, "pack-quantized"),
        ] {
            for (matrices, of_head, of_embedding) in [
                (&[][..], None, None),
                (&[Matrix::Head][..], Some(head), None),
                (&[Matrix::Embedding][..], None, Some(bytes)),
                (&[Matrix::Head, Matrix::Embedding][..], Some(head), Some(bytes)),
                (&[Matrix::Tied][..], Some(bytes), Some(bytes)),
            ] {
                let mut config = describe(blocks, &[HEAD]);
                for matrix in matrices {
                    describe_outside(&mut config, *matrix);
                }
                let is_mixed = [of_head, of_embedding]
                    .iter()
                    .flatten()
                    .any(|scheme| (*scheme == head) != (format == "pack-quantized"));
                assert_eq!(config["format"], if is_mixed { "mixed-precision" } else { format });
                let config = QuantizationConfig::parse(Path::new("config.json"), &config).unwrap();
                assert_eq!(config.scheme_of("model.layers.0.mlp.up_proj"), Some(blocks));
                assert_eq!(config.scheme_of(HEAD), of_head);
                assert_eq!(config.scheme_of_embedding(EMBEDDING_LAYER), of_embedding);
            }
        }
    }
}
