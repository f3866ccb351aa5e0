//! What can be wrong with a checkpoint folder. Every variant names the file, and the field or tensor in it.

use std::io::ErrorKind;
use std::path::PathBuf;

use qpipe_nodes::protocol::Failure;

use crate::error::ActionError;

/// Why a checkpoint cannot be read, run or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused; the message of `fs_err` names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A folder lacks a file that every checkpoint has.
    #[error("{folder} has no `{file}`", folder = .folder.display())]
    MissingFile {
        /// The checkpoint folder.
        folder: PathBuf,
        /// What was looked for.
        file: String,
    },
    /// A JSON file that does not parse.
    #[error("{file}: not valid JSON: {source}", file = .file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A field of config.json is missing, has the wrong type or an absurd value.
    #[error("{file}: `{field}` {problem}", file = .file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The field, dotted when nested.
        field: String,
        /// What is wrong: "is missing", "is 0, expected at least 1".
        problem: String,
    },
    /// An architecture that the decoder does not know.
    #[error("{file}: architecture `{name}` is not supported (known: {known})", file = .file.display())]
    UnknownArchitecture {
        /// config.json.
        file: PathBuf,
        /// The `model_type` or architecture that was found.
        name: String,
        /// All known ones.
        known: String,
    },
    /// A known setting with a value that the decoder does not implement.
    #[error("{file}: `{field}: {value}` is not supported (known: {known})", file = .file.display())]
    Unsupported {
        /// config.json.
        file: PathBuf,
        /// The field, dotted when nested.
        field: String,
        /// Its value.
        value: String,
        /// All known values.
        known: String,
    },
    /// A safetensors file whose header cannot be understood.
    #[error("{file}: not a safetensors file: {problem}", file = .file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// What git leaves where a large file was not fetched.
    #[error("{file}: this is a Git LFS pointer, not the weights", file = .file.display())]
    LfsPointer {
        /// The file.
        file: PathBuf,
    },
    /// A safetensors file that ends before its last tensor does, or goes on after it.
    #[error(
        "{file}: the file has {found} bytes where its header promises {expected}; \
         the first tensor affected is `{tensor}`",
        file = .file.display()
    )]
    Truncated {
        /// The file.
        file: PathBuf,
        /// The first tensor whose bytes are not all there.
        tensor: String,
        /// Size by the header.
        expected: u64,
        /// Size on disk.
        found: u64,
    },
    /// The index names a shard that is not in the folder.
    #[error("{index}: shard `{shard}` (with tensor `{tensor}`) is not there", index = .index.display())]
    MissingShard {
        /// model.safetensors.index.json.
        index: PathBuf,
        /// The shard's file name.
        shard: String,
        /// A tensor that the index places there.
        tensor: String,
    },
    /// A tensor that config.json calls for is not in the weights.
    #[error("{file}: tensor `{tensor}` is missing", file = .file.display())]
    MissingTensor {
        /// The safetensors file, or the index of several.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another shape than config.json calls for.
    #[error("{file}: tensor `{tensor}` has shape {found:?}, config.json calls for {expected:?}", file = .file.display())]
    Shape {
        /// The safetensors file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// By config.json.
        expected: Vec<i64>,
        /// In the file.
        found: Vec<i64>,
    },
    /// A tensor of a type that cannot be used where it stands.
    #[error("{file}: tensor `{tensor}` has type {found}, expected {expected}", file = .file.display())]
    TensorType {
        /// The safetensors file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What can be used.
        expected: String,
        /// In the file.
        found: String,
    },
    /// A quantization that the loader does not know, or quantized tensors that contradict each other.
    #[error("{file}: {problem}", file = .file.display())]
    Quantization {
        /// config.json or a safetensors file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// tokenizer.json or tokenizer_config.json cannot be understood.
    #[error("{file}: {problem}", file = .file.display())]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The tokenizer can produce tokens that the model has no embedding for.
    #[error(
        "{file}: the tokenizer does not fit the model: its highest token is {highest}, \
         the model's vocabulary has {vocab_size} entries",
        file = .file.display()
    )]
    TokenizerDoesNotFit {
        /// tokenizer.json.
        file: PathBuf,
        /// The highest token id.
        highest: u32,
        /// `vocab_size` of config.json.
        vocab_size: i64,
    },
    /// A tensor handed to the writer that differs from what was announced, or was not announced.
    #[error("tensor `{tensor}`: {problem}")]
    Written {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

impl ModelError {
    /// What to do, as a sentence.
    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::MissingFile { .. } => {
                "A model is a Hugging Face checkpoint folder: config.json, safetensors files, tokenizer.json. \
                 `save_pretrained` of transformers converts other weights and tokenizers."
            }
            Self::Io(error) if error.kind() != ErrorKind::InvalidData => return None,
            Self::Io(_) | Self::Json { .. } | Self::Header { .. } | Self::Tokenizer { .. } => {
                "Fetch the file again; it is damaged, or another file under this name."
            }
            Self::LfsPointer { .. } => "Run `git lfs pull` in that folder, or fetch the file from the Hub.",
            Self::Truncated { .. } => "Fetch the file again; the download was cut off.",
            Self::MissingShard { .. } => "Fetch the missing file into the folder.",
            Self::Field { .. } | Self::MissingTensor { .. } | Self::Shape { .. } => {
                "Use the config.json that belongs to these weights."
            }
            Self::UnknownArchitecture { .. } => "Use a model of one of the known architectures.",
            Self::Unsupported { .. } => {
                "Use a model without this setting: it changes what is computed, so it cannot be ignored."
            }
            Self::TokenizerDoesNotFit { .. } => "Use the tokenizer.json that belongs to these weights.",
            Self::TensorType { .. } | Self::Quantization { .. } => {
                "Use the 16- or 32-bit checkpoint, or one quantized in a known format."
            }
            Self::Written { .. } | Self::Torch(_) => return None,
        })
    }
}

impl From<ModelError> for ActionError {
    fn from(error: ModelError) -> Self {
        let help = error.help();
        let failed = match error {
            ModelError::Io(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                Self::user(error.to_string())
            }
            ModelError::Io(error) => error.into(),
            ModelError::Torch(error) => error.into(),
            ModelError::Written { .. } => Self::new(Failure::Deterministic, error.to_string()),
            other => Self::user(other.to_string()),
        };
        match help {
            Some(help) => failed.help(help),
            None => failed,
        }
    }
}
