//! LLM.int8().
//!
//! | tensor of a linear layer [N, K] | |
//! |---|---|
//! | `weight` i8 [N, K] | weight = code · SCB / 127 |
//! | `SCB` f32 `[N]` | the largest magnitude of each output channel |
//! | `weight_format` u8 \[\] | 0: row by row |

use qpipe_kernels::Codes;
use tch::{Device, Kind, TchError, Tensor};

use crate::model::checkpoint::Checkpoint;
use crate::model::error::ModelError;
use crate::model::formats::expect_tensor;
use crate::model::linear::LinearSpec;

const WEIGHT: &str = "weight";
const ABSMAX: &str = "SCB";
const FORMAT: &str = "weight_format";
/// The one that is still written: row by row.
const ROW: i64 = 0;

/// The tensors of the layer `name`: codes i8 [N, K], largest magnitudes f32 `[N]`.
///
/// # Errors
///
/// Only libtorch's.
pub fn store(name: &str, codes: Tensor, absmax: Tensor) -> Result<Vec<(String, Tensor)>, TchError> {
    let named = |part: &str, tensor: Tensor| (format!("{name}.{part}"), tensor);
    let format = Tensor::f_zeros([0_i64; 0], (Kind::Uint8, Device::Cpu))?;
    Ok(vec![named(WEIGHT, codes), named(ABSMAX, absmax), named(FORMAT, format)])
}

/// The codes of the layer `spec`.
pub(super) fn read(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    threshold: f64,
) -> Result<Codes, ModelError> {
    let name = |part: &str| format!("{}.{part}", spec.name);
    let format = name(FORMAT);
    if checkpoint.has(&format) {
        let found = checkpoint.tensor(&format)?;
        if found.numel() != 1 || i64::try_from(found.f_view([-1])?.f_get(0)?)? != ROW {
            return Err(ModelError::Unsupported {
                file: checkpoint.file_of(&format).to_owned(),
                field: format,
                value: format!("{:?}", Vec::<i64>::try_from(found.f_view([-1])?.f_to_kind(Kind::Int64)?)?),
                known: format!("{ROW}, row by row"),
            });
        }
    }
    let weight = name(WEIGHT);
    expect_tensor(checkpoint, &weight, &[spec.out_features, spec.in_features], Kind::Int8)?;
    Ok(Codes::LlmInt8 {
        weight: checkpoint.tensor(&weight)?,
        absmax: checkpoint.float_tensor(&name(ABSMAX), &[spec.out_features], Kind::Float, Device::Cpu)?,
        threshold,
    })
}
