//! A linear layer out of its tensors.

use qpipe_kernels::{Codes, QuantizedWeight, bitstream};
use serde_json::Value;
use tch::{Device, Kind, TchError, Tensor};

use super::config::{Config, Version};
use super::write::shifted;
use super::{G_IDX, MULTIPLE, QWEIGHT, QZEROS, SCALES};
use crate::model::checkpoint::Checkpoint;
use crate::model::decoder::HEAD;
use crate::model::error::ModelError;
use crate::model::formats::expect_tensor;
use crate::model::linear::LinearSpec;

/// The layer `spec` of `checkpoint`; `None` for the output projection, which is in floating point.
///
/// # Errors
///
/// Settings other than the above, tensors that are missing, or whose type or shape is not what config.json calls
/// for.
pub fn read_linear(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    config: &Value,
) -> Result<Option<QuantizedWeight>, ModelError> {
    let file = &checkpoint.config.quantization_file;
    let config = Config::parse(file, config)?;
    if spec.name == HEAD {
        return Ok(None);
    }
    let (out_features, in_features) = (spec.out_features, spec.in_features);
    let group = config.group.unwrap_or(in_features);
    let wrong = |problem: String| ModelError::Quantization { file: file.clone(), problem };
    for (what, count, divisor) in [
        ("input channels, which are not a multiple of the group size", in_features, group),
        ("input channels, which are not a multiple of", in_features, MULTIPLE),
        ("output channels, which are not a multiple of", out_features, MULTIPLE),
    ] {
        if count % divisor != 0 {
            return Err(wrong(format!("`{}` has {count} {what} {divisor}", spec.name)));
        }
    }
    let read = |part: &str, shape: &[i64], kind: Kind| {
        let name = format!("{}.{part}", spec.name);
        expect_tensor(checkpoint, &name, shape, kind)?;
        checkpoint.tensor(&name)
    };
    let bits = config.bits;
    let words = |count: i64| bitstream::words(count, bits);
    let groups = in_features / group;
    let zeros = read(QZEROS, &[groups, words(out_features)], Kind::Int)?;
    let zeros = match config.version {
        Version::V1 => shifted(&zeros, bits, out_features, 1)?,
        Version::V2 => zeros,
    };
    let zero = bitstream::unpack(&zeros, bits, out_features)?.f_tr()?.f_contiguous()?;
    let half = 1_i64 << (bits - 1);
    let is_symmetric = bool::try_from(zero.f_eq(half)?.f_all()?)?;
    let packed = read(QWEIGHT, &[words(in_features), out_features], Kind::Int)?.f_tr()?.f_contiguous()?;
    let scale = format!("{}.{SCALES}", spec.name);
    let scale =
        checkpoint.float_tensor(&scale, &[groups, out_features], checkpoint.kind(&scale)?, Device::Cpu)?;
    let order = match checkpoint.has(&format!("{}.{G_IDX}", spec.name)) {
        true => input_order(&read(G_IDX, &[in_features], Kind::Int)?, group)
            .map_err(|problem| wrong(format!("`{}.{G_IDX}`: {problem}", spec.name)))?,
        false => None,
    };
    let packed = match &order {
        None => packed,
        Some(order) => {
            let codes = bitstream::unpack(&packed, bits, in_features)?.f_index_select(1, order)?;
            bitstream::pack(&codes, bits)?
        }
    };
    let zero = (!is_symmetric).then_some(zero);
    let codes = Codes::weight_only(packed, bits, scale.f_tr()?.f_contiguous()?, zero, group)?;
    let bias = if spec.bias {
        let name = format!("{}.bias", spec.name);
        Some(checkpoint.float_tensor(&name, &[out_features], checkpoint.kind(&name)?, Device::Cpu)?)
    } else {
        None
    };
    let weight =
        QuantizedWeight::new(codes, bias, out_features, in_features).and_then(|weight| match order {
            Some(order) => weight.with_input_order(order),
            None => Ok(weight),
        });
    weight.map(Some).map_err(|error| wrong(format!("`{}`: {error}", spec.name)))
}

/// The input channels, i64 `[K]`, group after group; `None` where they stand so already.
fn input_order(group_of: &Tensor, group: i64) -> Result<Option<Tensor>, String> {
    let wrong = |error: TchError| error.to_string();
    let sorted = || -> Result<(Tensor, Tensor), TchError> {
        let in_features = group_of.size()[0];
        let neighbours = Tensor::f_arange(in_features, (Kind::Int, Device::Cpu))?
            .f_divide_scalar_mode(group, "floor")?
            .f_to_kind(Kind::Int)?;
        Ok((neighbours, group_of.f_argsort_stable(true, 0, false)?))
    };
    let (neighbours, order) = sorted().map_err(wrong)?;
    if group_of.equal(&neighbours) {
        return Ok(None);
    }
    let arranged = group_of.f_index_select(0, &order).map_err(wrong)?;
    if arranged.equal(&neighbours) {
        return Ok(Some(order));
    }
    Err(format!("its groups have not {group} input channels each"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn scattered_groups_are_brought_together_and_uneven_ones_refused() {
        let order = input_order(&Tensor::from_slice(&[1_i32, 0, 1, 0]), 2).unwrap().unwrap();
        assert_eq!(Vec::<i64>::try_from(order).unwrap(), [1, 3, 0, 2]);
        assert!(input_order(&Tensor::from_slice(&[0_i32, 0, 1, 1]), 2).unwrap().is_none());
        let error = input_order(&Tensor::from_slice(&[0_i32, 0, 0, 1]), 2).unwrap_err();
        assert_eq!(error, "its groups have not 2 input channels each");
    }
}
