//! The tensors of safetensors files, read through memory maps.
//!
//! Every file is mapped once, privately and read-only in effect, by libtorch itself (`torch.from_file`): the map is a tensor's storage, so
//! it lives as long as any tensor that views it and nothing has to be kept alive by hand. A tensor whose bytes are aligned for its type
//! is a view of the map (no copy; pages are read when they are first used). One that is not aligned, which the format allows, is copied.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::mm::{Advice, madvise};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::error::ModelError;

/// The limit that the safetensors crate sets for headers.
const LARGEST_HEADER: u64 = 100_000_000;
const LENGTH_BYTES: u64 = 8;
/// How a Git LFS pointer begins: `version https://git-lfs.github.com/spec/v1`.
const LFS_POINTER: &[u8; LENGTH_BYTES as usize] = b"version ";

/// Tensors by name in one or several safetensors files; also serves adapters, which have no config.json.
#[derive(Debug)]
pub struct TensorFiles {
    /// The single file, or the index.
    root: PathBuf,
    files: Vec<MappedFile>,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    /// u8 [file size], the map.
    bytes: Tensor,
}

#[derive(Debug)]
struct Place {
    /// Index into [`TensorFiles::files`].
    file: usize,
    dtype: Dtype,
    shape: Vec<i64>,
    /// From the start of the file.
    offset: u64,
    length: u64,
}

impl TensorFiles {
    /// One safetensors file.
    pub fn open(file: &Path) -> Result<Self, ModelError> {
        let mut this = Self { root: file.to_owned(), files: Vec::new(), places: BTreeMap::new() };
        this.add(file)?;
        Ok(this)
    }

    /// The shards that an index file names.
    pub(super) fn open_index(index: &Path) -> Result<Self, ModelError> {
        let text = fs::read_to_string(index)?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|source| ModelError::Json { file: index.to_owned(), source })?;
        let wrong = |problem: String| ModelError::Field {
            file: index.to_owned(),
            field: "weight_map".to_owned(),
            problem,
        };
        let Some(Value::Object(map)) = value.get("weight_map") else {
            return Err(wrong("is missing, or is not an object".to_owned()));
        };
        let mut shards: BTreeMap<&str, &str> = BTreeMap::new();
        for (tensor, shard) in map {
            let shard = shard.as_str().ok_or_else(|| wrong(format!("gives no file name for `{tensor}`")))?;
            if Path::new(shard).file_name() != Some(shard.as_ref()) {
                return Err(wrong(format!("places `{tensor}` outside the folder: `{shard}`")));
            }
            shards.entry(shard).or_insert(tensor);
        }
        let mut this = Self { root: index.to_owned(), files: Vec::new(), places: BTreeMap::new() };
        for (shard, tensor) in shards {
            let path = index.with_file_name(shard);
            if !path.is_file() {
                return Err(ModelError::MissingShard {
                    index: index.to_owned(),
                    shard: shard.to_owned(),
                    tensor: tensor.to_owned(),
                });
            }
            this.add(&path)?;
        }
        if let Some(missing) = map.keys().find(|name| !this.has(name)) {
            return Err(ModelError::MissingTensor { file: index.to_owned(), tensor: missing.clone() });
        }
        Ok(this)
    }

    fn add(&mut self, path: &Path) -> Result<(), ModelError> {
        let header = |problem: String| ModelError::Header { file: path.to_owned(), problem };
        let mut file = fs::File::open(path)?;
        let found = file.metadata()?.len();
        if found < LENGTH_BYTES {
            return Err(header(format!("it has {found} bytes")));
        }
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut length)?;
        if length == *LFS_POINTER {
            return Err(ModelError::LfsPointer { file: path.to_owned() });
        }
        let length = u64::from_le_bytes(length);
        if length > LARGEST_HEADER || LENGTH_BYTES + length > found {
            return Err(header(format!("it announces a header of {length} bytes in a file of {found}")));
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text)?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| header(error.to_string()))?;

        let start = LENGTH_BYTES + length;
        let expected = start + metadata.data_len() as u64;
        if expected < found {
            return Err(header(format!("it accounts for {expected} bytes of a file of {found}")));
        }
        if expected != found {
            let names = metadata.offset_keys();
            let is_cut = |name: &&String| {
                metadata.info(name).is_some_and(|info| start + info.data_offsets.1 as u64 > found)
            };
            return Err(ModelError::Truncated {
                file: path.to_owned(),
                tensor: names.iter().find(is_cut).or(names.last()).cloned().unwrap_or_default(),
                expected,
                found,
            });
        }
        for (name, info) in metadata.tensors() {
            let place = Place {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.iter().map(|&size| size as i64).collect(),
                offset: start + info.data_offsets.0 as u64,
                length: (info.data_offsets.1 - info.data_offsets.0) as u64,
            };
            self.places.insert(name, place);
        }
        let name = path.to_str().ok_or_else(|| header("its path is not UTF-8".to_owned()))?;
        let bytes = Tensor::f_from_file(name, false, found as i64, (Kind::Uint8, Device::Cpu))?;
        self.files.push(MappedFile { path: path.to_owned(), bytes });
        Ok(())
    }

    /// The tensor `name` on the CPU: a view of the map wherever the bytes are aligned for the type. It must
    /// not be written to; training copies it first.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let place = self.place(name)?;
        let kind = self.kind(name)?;
        if place.length == 0 {
            return Ok(Tensor::f_empty(&place.shape, (kind, Device::Cpu))?);
        }
        let bytes = self.files[place.file].bytes.f_narrow(0, place.offset as i64, place.length as i64)?;
        let aligned = place.offset.is_multiple_of(kind.elt_size_in_bytes() as u64);
        let bytes =
            if aligned { bytes } else { bytes.f_to_device_(Device::Cpu, Kind::Uint8, false, true)? };
        Ok(bytes.f_view_dtype(kind)?.f_view(place.shape.as_slice())?)
    }

    /// Gives back what pages of the map take in this process, of tensors whose names begin with `prefix`: a layer that was brought into another
    /// order or type no longer reads them. One that still does finds them in the system's cache.
    pub fn let_go(&self, prefix: &str) {
        let page = rustix::param::page_size() as u64;
        let named = self.places.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        for (_, place) in named {
            // Whole pages: the others hold parts of other tensors.
            let first = place.offset.next_multiple_of(page);
            let end = (place.offset + place.length) / page * page;
            if first < end {
                let map = self.files[place.file].bytes.data_ptr();
                // SAFETY: the pages lie in the map, and nobody writes to it: what is read of them later is the file's again. Refused, all stays.
                let _ = unsafe {
                    madvise(map.byte_add(first as usize), (end - first) as usize, Advice::LinuxDontNeed)
                };
            }
        }
    }

    /// Whether there is a tensor called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The shape of a tensor, without reading it.
    pub fn shape(&self, name: &str) -> Result<Vec<i64>, ModelError> {
        Ok(self.place(name)?.shape.clone())
    }

    /// The element type of a tensor, without reading it.
    pub fn kind(&self, name: &str) -> Result<Kind, ModelError> {
        let dtype = self.place(name)?.dtype;
        kind_of(dtype).ok_or_else(|| ModelError::TensorType {
            file: self.file_of(name).to_owned(),
            tensor: name.to_owned(),
            expected: "a type of libtorch's".to_owned(),
            found: format!("{dtype:?}"),
        })
    }

    /// The file that holds a tensor; the index or the single file where there is no such tensor.
    pub fn file_of(&self, name: &str) -> &Path {
        self.places.get(name).map_or(&self.root, |place| &self.files[place.file].path)
    }

    fn place(&self, name: &str) -> Result<&Place, ModelError> {
        self.places
            .get(name)
            .ok_or_else(|| ModelError::MissingTensor { file: self.root.clone(), tensor: name.to_owned() })
    }
}

/// libtorch's name for a type of the safetensors format.
fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F8_E4M3 => Kind::Float8e4m3fn,
        Dtype::F8_E5M2 => Kind::Float8e5m2,
        _ => return None,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "tensor_files_tests.rs"]
mod tests;
