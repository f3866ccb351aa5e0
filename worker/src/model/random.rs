//! `random:` sources: a model with fresh weights, from a config.json.
//!
//! Every tensor has its own stream of random bits, which depends on the seed and the tensor's name only, and
//! every stretch of `STRETCH` values in it its own part of that stream: the bytes do not depend on the
//! order, the number of threads or the machine. Tensors are made and written one at a time.

use std::path::Path;

use fs_err as fs;
use half::{bf16, f16};
use qpipe_nodes::kinds::{Download, Dtype};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::config::{Config, dtype_name};
use super::error::ModelError;
use super::expected::{self, Expected, Role};
use super::save::{CheckpointWriter, TensorSpec, is_companion, write_config};
use super::tokenizer::{TOKENIZER_FILE, Tokenizer};
use crate::context::{Context, Facts};
use crate::error::ActionError;

/// Values that are drawn from one part of a tensor's stream.
const STRETCH: usize = 1 << 16;
/// Part of what every stream is seeded with; another text gives other weights everywhere.
const DOMAIN: &[u8] = b"qpipe random weights 1";

/// Makes the model that the input `config` describes: linear layers and embeddings from a normal
/// distribution with config.json's `initializer_range`, norms one, biases zero, as transformers does. The
/// optional input `tokenizer` (a tokenizer.json, or a folder with one) is copied beside it.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    let params: Download = context.params()?;
    let config_file = context.input("config")?;
    let config = Config::read_file(config_file)?;
    if config.quantization.is_some() {
        return Err(ActionError::user(format!(
            "{}: `quantization_config` does not go with random weights",
            config_file.display()
        )));
    }
    let kind = match params.dtype {
        Some(Dtype::Float32) => Kind::Float,
        Some(Dtype::Bfloat16) => Kind::BFloat16,
        Some(Dtype::Float16) => Kind::Half,
        None => config.dtype.unwrap_or(Kind::Float),
    };
    let out = context.out()?;
    write_config(config_file, &out, Some(&json!({ "dtype": dtype_name(kind) })))?;
    if !context.inputs("tokenizer").is_empty() {
        copy_tokenizer(context.input("tokenizer")?, &out)?;
        Tokenizer::open(&out)?;
    }

    let tensors = tensors(&config, kind);
    let mut writer = CheckpointWriter::create(&out, tensors.iter().map(|(spec, _)| spec.clone()).collect())?;
    let total = tensors.len() as u64;
    let mut parameters = 0;
    for (done, (spec, fill)) in tensors.iter().enumerate() {
        context.check_stop()?;
        context.progress(done as u64, total, "tensors", None);
        let source = Source { seed: params.seed.unwrap_or(0), deviation: config.initializer_range };
        let tensor = source.tensor(spec, *fill, context.threads() as usize)?;
        parameters += tensor.numel() as u64;
        writer.put(&spec.name, &tensor)?;
    }
    writer.finish()?;
    context.progress(total, total, "tensors", None);
    Ok(Facts::from([("parameters".to_owned(), Value::from(parameters))]))
}

/// Copies the tokenizer's files from the folder `source`, or the file `source` as tokenizer.json.
fn copy_tokenizer(source: &Path, out: &Path) -> Result<(), ModelError> {
    // Not fs::copy: the store's files are read-only, and copies of them would be too.
    if !source.is_dir() {
        fs::write(out.join(TOKENIZER_FILE), fs::read(source)?)?;
        return Ok(());
    }
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        if is_companion(&entry.file_name().to_string_lossy()) && entry.path().is_file() {
            fs::write(out.join(entry.file_name()), fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// What a fresh tensor is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    Normal,
    Ones,
    Zeros,
}

/// All tensors of the model that `config` describes.
fn tensors(config: &Config, kind: Kind) -> Vec<(TensorSpec, Fill)> {
    let tensor = |Expected { name, shape, role }| {
        let fill = match role {
            Role::Matrix => Fill::Normal,
            Role::Norm => Fill::Ones,
            Role::Bias => Fill::Zeros,
        };
        (TensorSpec { name, kind, shape }, fill)
    };
    expected::tensors(config).into_iter().map(tensor).collect()
}

/// Where normal values come from.
#[derive(Clone, Copy, Debug)]
struct Source {
    seed: u64,
    deviation: f64,
}

impl Source {
    fn tensor(&self, spec: &TensorSpec, fill: Fill, threads: usize) -> Result<Tensor, ModelError> {
        let options = (spec.kind, tch::Device::Cpu);
        match fill {
            Fill::Ones => Ok(Tensor::f_ones(&spec.shape, options)?),
            Fill::Zeros => Ok(Tensor::f_zeros(&spec.shape, options)?),
            Fill::Normal => {
                let bytes = self.bytes(spec, threads.max(1));
                Ok(Tensor::f_from_data_size(&bytes, &spec.shape, spec.kind)?)
            }
        }
    }

    fn bytes(&self, spec: &TensorSpec, threads: usize) -> Vec<u8> {
        let width = spec.kind.elt_size_in_bytes();
        let count = spec.shape.iter().product::<i64>() as usize;
        let mut bytes = vec![0; count * width];
        let stretches = count.div_ceil(STRETCH);
        let share = stretches.div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            for (part, chunk) in bytes.chunks_mut(share * STRETCH * width).enumerate() {
                scope.spawn(move || {
                    for (index, stretch) in chunk.chunks_mut(STRETCH * width).enumerate() {
                        self.fill(spec, (part * share + index) as u64, stretch);
                    }
                });
            }
        });
        bytes
    }

    fn fill(&self, spec: &TensorSpec, stretch: u64, bytes: &mut [u8]) {
        let mut normal = Normal::new(self.seed, &spec.name, stretch);
        for place in bytes.chunks_exact_mut(spec.kind.elt_size_in_bytes()) {
            let value = (normal.next() * self.deviation) as f32;
            match spec.kind {
                Kind::BFloat16 => place.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
                Kind::Half => place.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
                _ => place.copy_from_slice(&value.to_le_bytes()),
            }
        }
    }
}

/// Standard normal values by the polar method (Marsaglia and Bray, 1964) from the extended output of BLAKE3.
/// Uses only additions, multiplications, divisions and square roots, which IEEE 754 defines to the last bit.
struct Normal {
    bits: blake3::OutputReader,
    buffer: [u8; 4096],
    used: usize,
    spare: Option<f64>,
}

impl Normal {
    fn new(seed: u64, name: &str, stretch: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(DOMAIN)
            .update(&seed.to_le_bytes())
            .update(&stretch.to_le_bytes())
            .update(name.as_bytes());
        Self { bits: hasher.finalize_xof(), buffer: [0; 4096], used: 4096, spare: None }
    }

    /// Uniform in (-1, 1), never 0.
    fn uniform(&mut self) -> f64 {
        if self.used == self.buffer.len() {
            self.bits.fill(&mut self.buffer);
            self.used = 0;
        }
        let mut word = [0; 4];
        word.copy_from_slice(&self.buffer[self.used..self.used + 4]);
        self.used += 4;
        (f64::from(u32::from_le_bytes(word)) + 0.5) / f64::from(1u32 << 31) - 1.0
    }

    fn next(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        loop {
            let (x, y) = (self.uniform(), self.uniform());
            let square = x * x + y * y;
            if square < 1.0 {
                let scale = (-2.0 * natural_logarithm(square) / square).sqrt();
                self.spare = Some(y * scale);
                return x * scale;
            }
        }
    }
}

/// ln(x) of a normal positive number: x = 2^e m with m in [1/√2, √2), ln m = 2 artanh((m - 1) / (m + 1)).
/// The standard library's differs between platforms in the last bits.
fn natural_logarithm(x: f64) -> f64 {
    const TERMS: i32 = 11;
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let series = (0..TERMS).rev().fold(0.0, |sum, term| sum * square + 1.0 / f64::from(2 * term + 1));
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * ratio * series
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "random_tests.rs"]
mod tests;
