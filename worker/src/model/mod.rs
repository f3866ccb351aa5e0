//! The model: a checkpoint folder in, hidden states and logits out.
//!
//! ```text
//! config.json ─► Config ─┐
//! *.safetensors ─► Checkpoint ─► formats ─► Decoder ─► generate
//!                                              │
//!                 save ◄── random, quant, sft ─┘        tokenizer.json ─► Tokenizer
//! ```
//!
//! One [`Decoder`] runs every family of `FAMILIES` (family.rs); a [`BlockRunner`] runs the same blocks one at a time; quantized layers come in through
//! [`formats::load_linear`] as another [`Linear`].

pub mod attention;
pub mod block;
pub mod blocks;
pub mod checkpoint;
pub mod config;
mod cost;
pub mod decoder;
pub mod embedding;
pub mod error;
pub mod expected;
mod family;
pub mod formats;
pub mod frame;
pub mod generate;
pub mod kv_cache;
pub mod linear;
pub mod mlp;
mod next_token;
pub mod norm;
mod ordered;
mod patterns;
mod pieces;
pub mod random;
pub mod rope;
pub mod save;
mod shared_prefix;
mod tensor_files;
pub mod tokenizer;

pub use block::Block;
pub use blocks::BlockRunner;
pub use checkpoint::Checkpoint;
pub use config::Config;
pub use decoder::Decoder;
pub use embedding::Embedding;
pub use error::ModelError;
pub use frame::Frame;
pub use kv_cache::{KvCache, Past, Prefix};
pub use linear::{Dense, Linear, LinearSpec, LoadOptions, Products};
pub use patterns::Attention;
pub use save::{CheckpointWriter, TensorSpec};
pub use tensor_files::TensorFiles;
pub use tokenizer::Tokenizer;
