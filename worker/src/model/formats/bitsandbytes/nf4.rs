//! NF4.
//!
//! | tensor of a linear layer [N, K], B = ⌈N·K/64⌉ | |
//! |---|---|
//! | `weight` u8 [⌈N·K/2⌉, 1] | codes, see [`mod@qpipe_kernels::nf4`] |
//! | `weight.absmax` f32 `[B]` | the largest magnitude of each block; with double quantization u8 `[B]` |
//! | `weight.quant_map` f32 `[16]` | what codes stand for |
//! | `weight.nested_absmax` f32 [⌈B/256⌉], `weight.nested_quant_map` f32 `[256]` | with double quantization |
//! | `weight.quant_state.bitsandbytes__nf4` u8 | a JSON object: type, block size, shape, and the offset of magnitudes |

use qpipe_kernels::nf4::{Absmax, NESTED_BLOCK, TABLE, blocks};
use qpipe_kernels::{Codes, nf4};
use serde::Deserialize;
use tch::{Device, Kind, TchError, Tensor};

use crate::model::checkpoint::Checkpoint;
use crate::model::error::ModelError;
use crate::model::formats::expect_tensor;
use crate::model::linear::LinearSpec;
use crate::torch;

/// The block size that is written: bitsandbytes' default, and the only one that transformers can ask for.
pub const BLOCK: i64 = 64;
/// Those that bitsandbytes knows.
const BLOCKS: [i64; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

const WEIGHT: &str = "weight";
const ABSMAX: &str = "weight.absmax";
const MAP: &str = "weight.quant_map";
const NESTED_ABSMAX: &str = "weight.nested_absmax";
const NESTED_MAP: &str = "weight.nested_quant_map";
const STATE: &str = "weight.quant_state.bitsandbytes__nf4";
const FP4_STATE: &str = "weight.quant_state.bitsandbytes__fp4";

/// The tensors of the layer `name`, which was [N, K] = `shape` of type `kind`: codes u8 [⌈N·K/2⌉] in blocks of
/// [`BLOCK`], and their magnitudes.
///
/// # Errors
///
/// Only libtorch's.
pub fn store(
    name: &str,
    shape: [i64; 2],
    kind: Kind,
    packed: &Tensor,
    absmax: &Absmax,
) -> Result<Vec<(String, Tensor)>, TchError> {
    let named = |part: &str, tensor: &Tensor| (format!("{name}.{part}"), tensor.shallow_clone());
    let mut tensors = vec![named(WEIGHT, &packed.f_view([-1, 1])?), named(MAP, &Tensor::from_slice(&TABLE))];
    let offset = match absmax {
        Absmax::Plain(values) => {
            tensors.push(named(ABSMAX, values));
            None
        }
        Absmax::Nested { code, map, scale, offset } => {
            tensors.extend([named(ABSMAX, code), named(NESTED_ABSMAX, scale), named(NESTED_MAP, map)]);
            Some(*offset)
        }
    };
    let state = Tensor::from_slice(state(shape, kind, offset).as_bytes());
    tensors.push(named(STATE, &state));
    Ok(tensors)
}

/// What Python's `json.dumps` makes of bitsandbytes' quantization state.
fn state([out_features, in_features]: [i64; 2], kind: Kind, offset: Option<f32>) -> String {
    let nested = offset.map_or_else(String::new, |offset| {
        format!(
            r#", "nested_blocksize": {NESTED_BLOCK}, "nested_dtype": "float32", "nested_offset": {}"#,
            python_float(f64::from(offset))
        )
    });
    format!(
        r#"{{"quant_type": "nf4", "blocksize": {BLOCK}, "dtype": "{}", "shape": [{out_features}, {in_features}]{nested}}}"#,
        torch::kind_name(kind)
    )
}

/// `value`, which is finite, as Python's `repr` writes it: the shortest digits that are read as the same number, with an
/// exponent below 1e-4 and from 1e16 on.
fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    match exponent.parse::<i32>().expect("`{:e}` writes an integer") {
        -4..16 => format!("{value:?}"),
        exponent => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
    }
}

/// bitsandbytes' quantization state, as far as it is of use here.
#[derive(Debug, Deserialize)]
struct State {
    quant_type: String,
    blocksize: i64,
    shape: Vec<i64>,
    nested_blocksize: Option<i64>,
    nested_dtype: Option<String>,
    nested_offset: Option<f64>,
}

/// The codes of the layer `spec`, which are disguised as the type `storage`.
pub(super) fn read(
    checkpoint: &Checkpoint,
    spec: &LinearSpec<'_>,
    compute: Kind,
    storage: Kind,
) -> Result<Codes, ModelError> {
    let reader = Reader { checkpoint, spec };
    let state = reader.state()?;
    let weights = spec.out_features * spec.in_features;
    let count = blocks(weights, state.blocksize);
    reader.check_map()?;
    Ok(Codes::Nf4 {
        packed: reader.packed((weights + 1) / 2, storage)?,
        absmax: reader.absmax(&state, count)?,
        block: state.blocksize,
        compute,
    })
}

struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    spec: &'a LinearSpec<'a>,
}

impl Reader<'_> {
    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.spec.name)
    }

    fn refuse(&self, part: &str, key: &str, value: &str, known: &str) -> ModelError {
        let name = self.name(part);
        ModelError::Unsupported {
            file: self.checkpoint.file_of(&name).to_owned(),
            field: if key.is_empty() { name } else { format!("{name}.{key}") },
            value: value.to_owned(),
            known: known.to_owned(),
        }
    }

    fn tensor(&self, part: &str, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
        let name = self.name(part);
        expect_tensor(self.checkpoint, &name, shape, kind)?;
        self.checkpoint.tensor(&name)
    }

    fn state(&self) -> Result<State, ModelError> {
        if self.checkpoint.has(&self.name(FP4_STATE)) {
            return Err(self.refuse(FP4_STATE, "quant_type", "fp4", "nf4"));
        }
        let name = self.name(STATE);
        let wrong = |problem: String| ModelError::Quantization {
            file: self.checkpoint.file_of(&name).to_owned(),
            problem: format!("`{name}`: {problem}"),
        };
        let bytes = self.checkpoint.tensor(&name)?;
        if bytes.kind() != Kind::Uint8 || bytes.dim() != 1 {
            return Err(wrong(format!(
                "is {:?} {:?}, expected the bytes of a text",
                bytes.kind(),
                bytes.size()
            )));
        }
        let state: State = serde_json::from_slice(&Vec::<u8>::try_from(&bytes)?)
            .map_err(|error| wrong(error.to_string()))?;
        if state.quant_type != "nf4" {
            return Err(self.refuse(STATE, "quant_type", &state.quant_type, "nf4"));
        }
        if !BLOCKS.contains(&state.blocksize) {
            let known = BLOCKS.map(|block| block.to_string()).join(", ");
            return Err(self.refuse(STATE, "blocksize", &state.blocksize.to_string(), &known));
        }
        let shape = [self.spec.out_features, self.spec.in_features];
        if state.shape != shape {
            return Err(wrong(format!("has shape {:?}, config.json calls for {shape:?}", state.shape)));
        }
        if let Some(block) = state.nested_blocksize.filter(|block| *block != NESTED_BLOCK) {
            let known = NESTED_BLOCK.to_string();
            return Err(self.refuse(STATE, "nested_blocksize", &block.to_string(), &known));
        }
        if let Some(kind) = state.nested_dtype.as_ref().filter(|kind| *kind != "float32") {
            return Err(self.refuse(STATE, "nested_dtype", kind, "float32"));
        }
        Ok(state)
    }

    /// bitsandbytes itself does not look at the table that is stored.
    fn check_map(&self) -> Result<(), ModelError> {
        let name = self.name(MAP);
        let map = self.checkpoint.float_tensor(&name, &[TABLE.len() as i64], Kind::Float, Device::Cpu)?;
        if Vec::<f32>::try_from(&map)? == TABLE {
            return Ok(());
        }
        Err(self.refuse(MAP, "", "another table", "NF4's"))
    }

    /// u8 `[bytes]`.
    fn packed(&self, bytes: i64, storage: Kind) -> Result<Tensor, ModelError> {
        let size = storage.elt_size_in_bytes() as i64;
        let tensor = self.tensor(WEIGHT, &[bytes / size, 1], storage)?;
        Ok(tensor.f_contiguous()?.f_view([-1])?.f_view_dtype(Kind::Uint8)?)
    }

    fn absmax(&self, state: &State, blocks: i64) -> Result<Absmax, ModelError> {
        let Some(offset) = state.nested_offset else {
            let name = self.name(ABSMAX);
            return Ok(Absmax::Plain(self.checkpoint.float_tensor(
                &name,
                &[blocks],
                Kind::Float,
                Device::Cpu,
            )?));
        };
        Ok(Absmax::Nested {
            code: self.tensor(ABSMAX, &[blocks], Kind::Uint8)?,
            map: self.tensor(NESTED_MAP, &[256], Kind::Float)?,
            scale: self.tensor(NESTED_ABSMAX, &[nf4::blocks(blocks, NESTED_BLOCK)], Kind::Float)?,
            offset: offset as f32,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_state_has_the_bytes_that_python_writes() {
        assert_eq!(
            state([64, 32], Kind::BFloat16, None),
            r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 32]}"#
        );
        assert_eq!(
            state([64, 64], Kind::Float, Some(0.493_042)),
            "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [64, 64], \
             \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": 0.4930419921875}"
        );
    }

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (f64::from(0.1_f32), "0.10000000149011612"),
            (0.0001, "0.0001"),
            (0.000_099_9, "9.99e-05"),
            (1e-38, "1e-38"),
            (123_456_789.0, "123456789.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
        ] {
            assert_eq!(python_float(value), text);
        }
    }

    #[test]
    fn a_state_with_other_keys_is_read_too() {
        let text = r#"{"shape": [4, 8], "dtype": "float16", "quant_type": "nf4", "blocksize": 64}"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!((state.blocksize, state.shape, state.nested_offset), (64, vec![4, 8], None));
    }
}
