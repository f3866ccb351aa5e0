//! Keys and values of tokens that went through the decoder already. For inference only: it is written in
//! place.

use std::fmt::Debug;
use std::sync::OnceLock;

use qpipe_kernels::attention;
use qpipe_kernels::decode::Slots;
use tch::{TchError, Tensor};

use super::config::Config;
use super::linear::tensor_bytes;

/// Tokens that come before those of a forward pass.
pub trait Past: Debug {
    /// Positions of the tokens before and the new ones, i64 [B, T], together: [B, len + T]. Called once a forward pass, before
    /// the layers.
    fn append_positions(&mut self, positions: &Tensor) -> Tensor;

    /// The new keys and values [B, kv_heads, T, head_dim] of `layer` behind those from before.
    fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> (Tensor, Tensor);

    /// How many tokens there are of one row that all new tokens see, whatever their row.
    fn shared_tokens(&self) -> i64 {
        0
    }

    /// The keys and values of these in `layer`, [1, kv_heads, P, head_dim], to be attended to without [`Past::append`].
    fn shared(&self, _layer: usize) -> Option<(Tensor, Tensor)> {
        None
    }

    /// The same in the order of our own kernel, for a pass in which [`attention::can_attend`].
    fn shared_packed(&self, _layer: usize) -> Option<&attention::PackedPrefix> {
        None
    }

    /// Where the one new token of each row goes in `layer`, for [`super::Attention::Next`].
    fn next(&self, _layer: usize) -> Option<Slots<'_>> {
        None
    }
}

/// One row that every row of a batch begins with. New tokens are not added to it: it serves one batch after the other.
#[derive(Debug)]
pub struct Prefix<'a>(&'a KvCache);

impl<'a> Prefix<'a> {
    /// `cache` holds one row.
    pub fn new(cache: &'a KvCache) -> Self {
        Self(cache)
    }
}

impl Past for Prefix<'_> {
    fn append_positions(&mut self, positions: &Tensor) -> Tensor {
        match &self.0.positions {
            Some(cached) => Tensor::cat(&[&cached.expand([positions.size()[0], -1], false), positions], 1),
            None => positions.shallow_clone(),
        }
    }

    fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> (Tensor, Tensor) {
        let Some(cache) = &self.0.layers[layer] else {
            return (keys.shallow_clone(), values.shallow_clone());
        };
        let behind = |cached: &Tensor, new: &Tensor| {
            let cached = cached.narrow(2, 0, cache.len).expand([new.size()[0], -1, -1, -1], false);
            Tensor::cat(&[&cached, new], 2)
        };
        (behind(&cache.keys, keys), behind(&cache.values, values))
    }

    fn shared_tokens(&self) -> i64 {
        self.0.len()
    }

    fn shared(&self, layer: usize) -> Option<(Tensor, Tensor)> {
        Some(self.0.layers[layer].as_ref()?.filled())
    }

    fn shared_packed(&self, layer: usize) -> Option<&attention::PackedPrefix> {
        let layer = self.0.layers[layer].as_ref()?;
        Some(layer.packed.get_or_init(|| {
            let (keys, values) = layer.filled();
            attention::PackedPrefix::new(&keys, &values).expect("they are there already")
        }))
    }
}

/// Keys and values by layer, and the positions they belong to. Rows of a batch have the same length; what
/// is padding in a row is for the caller's mask to hide.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<LayerCache>>,
    /// i64 [B, len].
    positions: Option<Tensor>,
    /// Tokens to make room for at once.
    capacity: i64,
}

#[derive(Debug)]
struct LayerCache {
    /// [B, kv_heads, room, head_dim], of which the first `len` places are filled.
    keys: Tensor,
    values: Tensor,
    len: i64,
    /// What is filled, once somebody asks.
    packed: OnceLock<attention::PackedPrefix>,
}

impl LayerCache {
    /// Keys and values [B, kv_heads, len, head_dim].
    fn filled(&self) -> (Tensor, Tensor) {
        (self.keys.narrow(2, 0, self.len), self.values.narrow(2, 0, self.len))
    }

    /// So many of its places are filled from now on.
    fn set_len(&mut self, len: i64) {
        self.len = len;
        self.packed = OnceLock::new();
    }
}

impl KvCache {
    /// Tokens that a cache of unknown final length first makes room for.
    const FIRST_ROOM: i64 = 256;

    /// Empty; grows by doubling.
    pub fn new(config: &Config) -> Self {
        Self::with_capacity(config, Self::FIRST_ROOM)
    }

    /// Empty, with room for `capacity` tokens a row.
    pub fn with_capacity(config: &Config, capacity: i64) -> Self {
        Self {
            layers: (0..config.layers).map(|_| None).collect(),
            positions: None,
            capacity: capacity.max(1),
        }
    }

    /// Tokens a row.
    pub fn len(&self) -> i64 {
        self.positions.as_ref().map_or(0, |positions| positions.size()[1])
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps only these rows of the batch, i64 `[rows]`, in this order; one that is named twice is there twice.
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    pub fn select(&mut self, rows: &Tensor) -> Result<(), TchError> {
        if let Some(positions) = &mut self.positions {
            *positions = positions.f_index_select(0, rows)?;
        }
        for layer in self.layers.iter_mut().flatten() {
            layer.keys = layer.keys.f_index_select(0, rows)?;
            layer.values = layer.values.f_index_select(0, rows)?;
            layer.packed = OnceLock::new();
        }
        Ok(())
    }

    /// Tokens that the buffers have room for; 0 while there are none.
    pub fn room(&self) -> i64 {
        self.layers.iter().flatten().map(|layer| layer.keys.size()[2]).min().unwrap_or(0)
    }

    /// The whole buffers of `layer`, keys and values, [B, kv_heads, room, head_dim].
    pub(super) fn buffers(&self, layer: usize) -> Option<(&Tensor, &Tensor)> {
        self.layers[layer].as_ref().map(|layer| (&layer.keys, &layer.values))
    }

    /// Takes in tokens whose keys and values stand in their places already, by their positions, i64 [B, T].
    pub(super) fn advance(&mut self, positions: &Tensor) {
        let _ = self.append_positions(positions);
        for layer in self.layers.iter_mut().flatten() {
            layer.set_len(layer.len + positions.size()[1]);
        }
    }

    /// Bytes of what was brought into the order of our own attention, which libtorch's allocator knows nothing of.
    pub fn packed_bytes(&self) -> u64 {
        let packed = self.layers.iter().flatten().filter_map(|layer| layer.packed.get());
        packed.map(|packed| packed.bytes() as u64).sum()
    }

    /// Bytes of the buffers.
    pub fn bytes(&self) -> u64 {
        let layers = self.layers.iter().flatten();
        layers.map(|layer| tensor_bytes(&layer.keys) + tensor_bytes(&layer.values)).sum()
    }
}

impl Past for KvCache {
    fn append_positions(&mut self, positions: &Tensor) -> Tensor {
        let all = match self.positions.take() {
            Some(cached) => Tensor::cat(&[&cached, positions], 1),
            None => positions.shallow_clone(),
        };
        self.positions = Some(all.shallow_clone());
        all
    }

    /// Stores them, too; all of that layer come back as views.
    fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> (Tensor, Tensor) {
        let added = keys.size()[2];
        let capacity = self.capacity;
        let cache = self.layers[layer].get_or_insert_with(|| LayerCache {
            keys: with_room(keys, capacity.max(added)),
            values: with_room(values, capacity.max(added)),
            len: 0,
            packed: OnceLock::new(),
        });
        let len = cache.len + added;
        let room = cache.keys.size()[2];
        if len > room {
            cache.keys = grown(&cache.keys, cache.len, len.max(2 * room));
            cache.values = grown(&cache.values, cache.len, len.max(2 * room));
        }
        cache.keys.narrow(2, cache.len, added).copy_(keys);
        cache.values.narrow(2, cache.len, added).copy_(values);
        cache.set_len(len);
        cache.filled()
    }
}

fn with_room(like: &Tensor, room: i64) -> Tensor {
    let size = like.size();
    Tensor::empty([size[0], size[1], room, size[3]], (like.kind(), like.device()))
}

fn grown(buffer: &Tensor, len: i64, room: i64) -> Tensor {
    let larger = with_room(buffer, room);
    larger.narrow(2, 0, len).copy_(&buffer.narrow(2, 0, len));
    larger
}
