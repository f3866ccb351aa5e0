//! Writing a checkpoint folder: safetensors files, tensor by tensor, and the small files beside them.
//!
//! Shapes and types are announced first, so headers are written once and every tensor goes to its final
//! place as soon as it is there: never more than one tensor has to be in memory. Within a file tensors are
//! laid out by descending element size, as safetensors' own writer does, and the header is padded to a
//! cache line, so that every tensor is aligned for its type and can be used straight from a memory map.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::FileExt;
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use super::checkpoint::{INDEX_FILE, WEIGHTS_FILE};
use super::config::CONFIG_FILE;
use super::error::ModelError;

/// Size above which a checkpoint is split into files of at most this size, in bytes.
pub const SHARD_BYTES: u64 = 5_000_000_000;
/// A cache line, and the widest SIMD register.
const ALIGNMENT: usize = 64;
/// Bytes that are copied out of libtorch at once.
const CHUNK_BYTES: i64 = 16 << 20;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type: bool, u8, i8, i16, i32, i64, f16, bf16, f32 or f64.
    pub kind: Kind,
    /// Its shape; empty for a scalar.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// The specification of `tensor`.
    pub fn of(name: impl Into<String>, tensor: &Tensor) -> Self {
        Self { name: name.into(), kind: tensor.kind(), shape: tensor.size() }
    }

    /// Bytes of its elements.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<i64>() as u64 * self.kind.elt_size_in_bytes() as u64
    }
}

/// Writes a whole checkpoint: each tensor is asked of `produce` in the order of `tensors`, then the files
/// beside the weights are copied from `source` (see [`copy_companions`]).
pub fn write_checkpoint<E: From<ModelError>>(
    folder: &Path,
    tensors: Vec<TensorSpec>,
    mut produce: impl FnMut(&TensorSpec) -> Result<Tensor, E>,
    source: &Path,
    config_patch: Option<&Value>,
) -> Result<(), E> {
    let mut writer = CheckpointWriter::create(folder, tensors.clone())?;
    for spec in &tensors {
        writer.put(&spec.name, &produce(spec)?)?;
    }
    writer.finish()?;
    copy_companions(source, folder, config_patch)?;
    Ok(())
}

/// Writes `tensors` to one safetensors file: adapters, states of an optimizer.
pub fn write_tensors(file: &Path, tensors: &[(String, Tensor)]) -> Result<(), ModelError> {
    let specs = tensors.iter().map(|(name, tensor)| TensorSpec::of(name, tensor)).collect();
    let mut writer = CheckpointWriter::single(file, specs)?;
    for (name, tensor) in tensors {
        writer.put(name, tensor)?;
    }
    writer.finish()
}

/// A checkpoint's weights while they are being written, in any order.
#[derive(Debug)]
pub struct CheckpointWriter {
    files: Vec<fs::File>,
    places: BTreeMap<String, Place>,
    /// Tensors not yet written.
    left: usize,
    /// The index file of a sharded checkpoint and its content.
    index: Option<(PathBuf, Value)>,
}

#[derive(Debug)]
struct Place {
    file: usize,
    offset: u64,
    kind: Kind,
    shape: Vec<i64>,
    written: bool,
}

impl CheckpointWriter {
    /// Makes the files of a checkpoint of `tensors` in `folder`: one, or several of at most
    /// [`SHARD_BYTES`] with an index. Shards follow the order of `tensors`.
    pub fn create(folder: &Path, tensors: Vec<TensorSpec>) -> Result<Self, ModelError> {
        Self::create_sharded(folder, tensors, SHARD_BYTES)
    }

    /// Makes one file of `tensors`, whatever its size and name: no checkpoint, but written in the same way.
    pub fn single(file: &Path, tensors: Vec<TensorSpec>) -> Result<Self, ModelError> {
        let mut this = Self { files: Vec::new(), places: BTreeMap::new(), left: 0, index: None };
        this.add_file(file.to_owned(), tensors)?;
        Ok(this)
    }

    fn create_sharded(folder: &Path, tensors: Vec<TensorSpec>, shard_bytes: u64) -> Result<Self, ModelError> {
        fs::create_dir_all(folder)?;
        let total: u64 = tensors.iter().map(TensorSpec::bytes).sum();
        let mut this = Self { files: Vec::new(), places: BTreeMap::new(), left: 0, index: None };
        if total <= shard_bytes {
            this.add_file(folder.join(WEIGHTS_FILE), tensors)?;
            return Ok(this);
        }
        let mut shards: Vec<Vec<TensorSpec>> = vec![Vec::new()];
        let mut filled = 0;
        for tensor in tensors {
            let bytes = tensor.bytes();
            if filled > 0 && filled + bytes > shard_bytes {
                shards.push(Vec::new());
                filled = 0;
            }
            filled += bytes;
            shards.last_mut().expect("there is always a first shard").push(tensor);
        }
        let mut map = Map::new();
        let count = shards.len();
        for (number, shard) in shards.into_iter().enumerate() {
            let name = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
            map.extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::from(name.as_str()))));
            this.add_file(folder.join(name), shard)?;
        }
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        this.index = Some((folder.join(INDEX_FILE), index));
        Ok(this)
    }

    fn add_file(&mut self, path: PathBuf, mut tensors: Vec<TensorSpec>) -> Result<(), ModelError> {
        tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.kind.elt_size_in_bytes()));
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
        let mut end = 0;
        for tensor in &tensors {
            let start = end;
            end += tensor.bytes();
            let entry = json!({
                "dtype": dtype_name(tensor)?,
                "shape": tensor.shape,
                "data_offsets": [start, end],
            });
            if header.insert(tensor.name.clone(), entry).is_some() {
                return Err(written(&tensor.name, "is announced twice"));
            }
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        let padded = (8 + text.len()).next_multiple_of(ALIGNMENT) - 8;
        text.resize(padded, b' ');

        let file = fs::File::create(&path)?;
        file.set_len(8 + padded as u64 + end)?;
        file.write_all_at(&(padded as u64).to_le_bytes(), 0)?;
        file.write_all_at(&text, 8)?;
        let mut offset = 8 + padded as u64;
        for tensor in tensors {
            let bytes = tensor.bytes();
            let TensorSpec { name, kind, shape } = tensor;
            let place = Place { file: self.files.len(), offset, kind, shape, written: false };
            if self.places.insert(name.clone(), place).is_some() {
                return Err(written(&name, "is announced twice"));
            }
            offset += bytes;
            self.left += 1;
        }
        self.files.push(file);
        Ok(())
    }

    /// Writes the announced tensor `name`, from any device.
    pub fn put(&mut self, name: &str, tensor: &Tensor) -> Result<(), ModelError> {
        let place = self.places.get_mut(name).ok_or_else(|| written(name, "was not announced"))?;
        if place.written {
            return Err(written(name, "is written twice"));
        }
        if tensor.kind() != place.kind || tensor.size() != place.shape {
            return Err(written(
                name,
                &format!(
                    "is {:?} {:?}, announced as {:?} {:?}",
                    tensor.kind(),
                    tensor.size(),
                    place.kind,
                    place.shape
                ),
            ));
        }
        place.written = true;
        self.left -= 1;
        let file = &self.files[place.file];
        if tensor.numel() == 0 {
            return Ok(());
        }
        let bytes = tensor
            .detach()
            .f_to_device(Device::Cpu)?
            .f_contiguous()?
            .f_view([-1])?
            .f_view_dtype(Kind::Uint8)?;
        let total = bytes.size()[0];
        let mut buffer = vec![0; total.min(CHUNK_BYTES) as usize];
        for start in (0..total).step_by(CHUNK_BYTES as usize) {
            let length = (total - start).min(CHUNK_BYTES);
            bytes.f_narrow(0, start, length)?.f_copy_data_u8(&mut buffer, length as usize)?;
            file.write_all_at(&buffer[..length as usize], place.offset + start as u64)?;
        }
        Ok(())
    }

    /// Ends the files; an error if an announced tensor was not written.
    pub fn finish(self) -> Result<(), ModelError> {
        if self.left > 0
            && let Some((name, _)) = self.places.iter().find(|(_, place)| !place.written)
        {
            return Err(written(name, "was announced and never written"));
        }
        if let Some((path, index)) = &self.index {
            fs::write(path, format!("{index:#}\n"))?;
        }
        Ok(())
    }
}

fn written(tensor: &str, problem: &str) -> ModelError {
    ModelError::Written { tensor: tensor.to_owned(), problem: problem.to_owned() }
}

/// The safetensors format's name for a type.
fn dtype_name(tensor: &TensorSpec) -> Result<&'static str, ModelError> {
    Ok(match tensor.kind {
        Kind::Bool => "BOOL",
        Kind::Uint8 => "U8",
        Kind::Int8 => "I8",
        Kind::Int16 => "I16",
        Kind::Int => "I32",
        Kind::Int64 => "I64",
        Kind::Half => "F16",
        Kind::BFloat16 => "BF16",
        Kind::Float => "F32",
        Kind::Double => "F64",
        other => return Err(written(&tensor.name, &format!("cannot be stored as {other:?}"))),
    })
}

/// Copies what belongs to a checkpoint besides its weights from `source` to `folder`: config.json with the
/// keys of `config_patch` (an object) put over its own, a null removing a key; generation_config.json, the
/// tokenizer's files and the chat template as they are.
pub fn copy_companions(source: &Path, folder: &Path, config_patch: Option<&Value>) -> Result<(), ModelError> {
    fs::create_dir_all(folder)?;
    write_config(&source.join(CONFIG_FILE), folder, config_patch)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_companion(&name.to_string_lossy()) && entry.path().is_file() {
            // Not fs::copy: the store's files are read-only, and copies of them would be too.
            fs::write(folder.join(&name), fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Writes `folder/config.json`: the one at `source` with `patch` put over it. A `dtype` of the patch goes where
/// the file keeps its own: transformers 4 calls it `torch_dtype`.
pub fn write_config(source: &Path, folder: &Path, patch: Option<&Value>) -> Result<(), ModelError> {
    let json_error = |source_error| ModelError::Json { file: source.to_owned(), source: source_error };
    let mut config: Value = serde_json::from_str(&fs::read_to_string(source)?).map_err(json_error)?;
    if let (Some(config), Some(Value::Object(patch))) = (config.as_object_mut(), patch) {
        for (key, value) in patch {
            let key = if key == "dtype" && config.contains_key("torch_dtype") { "torch_dtype" } else { key };
            if value.is_null() {
                config.remove(key);
            } else {
                config.insert(key.to_owned(), value.clone());
            }
        }
    }
    fs::write(folder.join(CONFIG_FILE), format!("{config:#}\n"))?;
    Ok(())
}

/// Whether a file of a checkpoint folder belongs to its tokenizer or its generation settings.
pub fn is_companion(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
    ];
    NAMES.contains(&name) || name.starts_with("tokenizer") || name.starts_with("chat_template.")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "save_tests.rs"]
mod tests;
