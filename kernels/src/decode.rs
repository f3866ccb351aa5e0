//! What attention does for one new token a sequence, on CUDA: what changes from token to token, the kernels
//! read from the card's memory, so that a recorded graph of them serves each.
//!
//! A cache has `room` places, [B, kv_heads, room, D] for keys and for values. `place`, i64 `[1]`, says how
//! many are filled, which is where the new token goes.

use tch::{Device, Kind, Tensor};

use crate::cuda::{self, Argument, Function, Grid, Source};
use crate::cuda_rows::{aligned, number_of};
use crate::weight::{KernelError, expect};

/// Queries rotated; keys rotated, and values, into the cache.
pub(crate) static APPEND: Source = Source::new(
    "rotate_append",
    include_str!("../cuda/rotate_append.cu"),
    &["rotate_append_f32", "rotate_append_f16", "rotate_append_bf16"],
);

/// Queries to the cache.
pub(crate) static ATTEND: Source = Source::new(
    "attend_one",
    include_str!("../cuda/attend_one.cu"),
    &["attend_one_f32", "attend_one_f16", "attend_one_bf16"],
);

/// Types of activations.
const KINDS: [Kind; 3] = [Kind::Float, Kind::Half, Kind::BFloat16];
/// Threads of a block of [`APPEND`], and of [`ATTEND`].
const APPEND_THREADS: u32 = 256;
const ATTEND_THREADS: u32 = 128;
/// Heads of a group that a block of [`ATTEND`] takes.
const TILE: i64 = 4;
/// Parts of a sequence: at most, and places of the smallest that is worth a block.
const MOST_SPLITS: i64 = 64;
const FEWEST_PLACES: i64 = 32;
/// Blocks of [`ATTEND`] that keep a card's memory busy: four for each multiprocessor of the largest.
const BLOCKS: i64 = 512;
/// D: a multiple of the first, up to the second.
const WIDTHS: (i64, i64) = (8, 256);

/// Whether the functions of this module work for activations of type `kind` on `device`, with so many heads of queries and of keys, of width D.
pub fn can_decode(kind: Kind, device: Device, (heads, kv_heads, width): (i64, i64, i64)) -> bool {
    KINDS.contains(&kind)
        && fits(heads, kv_heads, width)
        && [&APPEND, &ATTEND].into_iter().all(|source| cuda::entry(source, number_of(kind), device).is_some())
}

/// The entry of `source` for `x`, or why there is none.
fn function_for(source: &'static Source, x: &Tensor) -> Result<Function, KernelError> {
    let number = number_of(x.kind());
    match cuda::entry(source, number, x.device()) {
        Some(function) => Ok(function),
        None => Ok(Function::of(source, source.functions[number], x.device(), 0)?),
    }
}

/// The four sizes of a cache.
fn sizes_of(name: &'static str, cache: &Tensor) -> Result<[i64; 4], KernelError> {
    <[i64; 4]>::try_from(cache.size()).map_err(|found| KernelError::Inconsistent {
        tensor: name,
        found_kind: cache.kind(),
        found,
        expected: String::from("[B, kv_heads, room, D]"),
    })
}

/// How many heads `q` [B, heads, D] has.
fn heads_of(q: &Tensor, batch: i64, width: i64) -> Result<i64, KernelError> {
    let heads = q.size().get(1).copied().unwrap_or(0);
    expect("q", q, &KINDS, &[batch, heads, width])?;
    Ok(heads)
}

/// Where the one new token of every sequence goes, which the card alone knows, and what it sees.
#[derive(Clone, Copy, Debug)]
pub struct Slots<'a> {
    /// [B, kv_heads, room, D].
    pub keys: &'a Tensor,
    /// As `keys`.
    pub values: &'a Tensor,
    /// i64 `[1]`: how many places are filled.
    pub place: &'a Tensor,
    /// i64 `[B]`: the first place that a row sees.
    pub first: Option<&'a Tensor>,
    /// For [`attend_one`].
    pub parts: &'a Parts,
}

/// Rotates queries `q` [B, heads, D], as [`crate::rotate`] does; keys `k` [B, kv_heads, D] likewise into the slots' keys, and values `v` into
/// their values. Where the place is beyond the room, nothing is written, not the queries either.
///
/// `cos` and `sin` are [A, D/2], row b's angles being those of b % A.
///
/// # Errors
///
/// If shapes or types contradict each other, or something is not on the card or has gaps.
pub fn append_rotated(
    [q, k, v]: [&Tensor; 3],
    [cos, sin]: [&Tensor; 2],
    slots: &Slots<'_>,
) -> Result<Tensor, KernelError> {
    let Slots { keys, values, place, .. } = *slots;
    let [batch, kv_heads, room, width] = sizes_of("keys", keys)?;
    let heads = heads_of(q, batch, width)?;
    let (kind, half) = ([q.kind()], width / 2);
    let angles = cos.size().first().copied().unwrap_or(1).max(1);
    expect("keys", keys, &kind, &[batch, kv_heads, room, 2 * half])?;
    expect("values", values, &kind, &[batch, kv_heads, room, width])?;
    expect("k", k, &kind, &[batch, kv_heads, width])?;
    expect("v", v, &kind, &[batch, kv_heads, width])?;
    expect("cos", cos, &kind, &[angles, half])?;
    expect("sin", sin, &kind, &[angles, half])?;
    expect("place", place, &[Kind::Int64], &[1])?;
    let function = function_for(&APPEND, q)?;
    let [q, k, v] = [q.f_contiguous()?, k.f_contiguous()?, v.f_contiguous()?];
    let out = q.f_empty_like()?;
    let mut arguments = Vec::from([&q, &k, &v, cos, sin, place, &out, keys, values].map(Argument::Tensor));
    let numbers = [batch, heads, kv_heads, half, room, angles];
    arguments.extend(numbers.map(|number| Argument::Int(number as i32)));
    let pairs = (batch * (heads + 2 * kv_heads) * half).cast_unsigned();
    let blocks = [pairs.div_ceil(u64::from(APPEND_THREADS)) as u32, 1, 1];
    // SAFETY: these are rotate_append's parameters, and the tensors have the shapes that it tells.
    unsafe { function.launch(Grid { blocks, threads: APPEND_THREADS, shared_bytes: 0 }, &arguments)? };
    Ok(out)
}

/// What launches of [`attend_one`] need beside their tensors: they may share one if they are queued one after
/// the other.
#[derive(Debug)]
pub struct Parts {
    batch: i64,
    heads: i64,
    kv_heads: i64,
    width: i64,
    /// Into how many parts a sequence is cut at most.
    splits: i64,
    /// f32: what each part leaves.
    scratch: Tensor,
    /// i32: how many parts of a head are done. Zeros between launches.
    arrived: Tensor,
}

impl Parts {
    /// For `heads` heads of queries [B, heads, D] to a cache [B, kv_heads, room, D].
    ///
    /// # Errors
    ///
    /// If D is no multiple of 8 up to 256 or `heads` no multiple of `kv_heads`, and libtorch's.
    pub fn new(heads: i64, cache: &Tensor) -> Result<Self, KernelError> {
        let [batch, kv_heads, room, width] = sizes_of("cache", cache)?;
        if !fits(heads, kv_heads, width) {
            return Err(KernelError::Inconsistent {
                tensor: "cache",
                found_kind: cache.kind(),
                found: cache.size(),
                expected: format!(
                    "D a multiple of {} up to {}, kv_heads a divisor of {heads}",
                    WIDTHS.0, WIDTHS.1
                ),
            });
        }
        let splits = splits(batch * tiles(heads, kv_heads) * kv_heads, room);
        let zeros = |count, kind| Tensor::f_zeros([count], (kind, cache.device()));
        Ok(Self {
            batch,
            heads,
            kv_heads,
            width,
            splits,
            scratch: zeros(batch * heads * splits * (width + 2), Kind::Float)?,
            arrived: zeros(batch * kv_heads * tiles(heads, kv_heads), Kind::Int)?,
        })
    }
}

/// Whether heads are of a width that is served, and queries' are groups of keys'.
fn fits(heads: i64, kv_heads: i64, width: i64) -> bool {
    let is_served = width % WIDTHS.0 == 0 && (WIDTHS.0..=WIDTHS.1).contains(&width);
    is_served && kv_heads > 0 && heads >= kv_heads && heads % kv_heads == 0
}

/// Blocks that share a group's heads.
fn tiles(heads: i64, kv_heads: i64) -> i64 {
    (heads / kv_heads).cast_unsigned().div_ceil(TILE.cast_unsigned()).cast_signed()
}

/// Into how many parts a sequence is cut where blocks of `each` places would be needed without.
fn splits(each: i64, room: i64) -> i64 {
    let up = |count: i64, by: i64| (count + by - 1) / by;
    up(BLOCKS, each.max(1)).min(up(room, FEWEST_PLACES)).clamp(1, MOST_SPLITS)
}

/// softmax(q Kᵀ / √D) V in f32, rounded to the type of `q` [B, heads, D], over the filled places of the slots and the new one, which
/// [`append_rotated`] has filled. With a window a row sees its last so many alone; one that sees nothing gets zeros.
///
/// # Errors
///
/// If shapes or types contradict each other, or something is not on the card or has gaps.
pub fn attend_one(q: &Tensor, slots: &Slots<'_>, window: Option<i64>) -> Result<Tensor, KernelError> {
    let Slots { keys, values, place, first, parts } = *slots;
    let [_, _, room, _] = sizes_of("keys", keys)?;
    let &Parts { batch, heads, kv_heads, width, splits, .. } = parts;
    let kind = [q.kind()];
    expect("q", q, &KINDS, &[batch, heads, width])?;
    expect("keys", keys, &kind, &[batch, kv_heads, room, width])?;
    expect("values", values, &kind, &[batch, kv_heads, room, width])?;
    expect("place", place, &[Kind::Int64], &[1])?;
    for (tensor, cache) in [("keys", keys), ("values", values)] {
        // Loaded 16 bytes at once.
        if !(cache.data_ptr() as usize).is_multiple_of(16) {
            let (found_kind, found) = (cache.kind(), cache.size());
            let expected = String::from("it to begin at a multiple of 16 bytes");
            return Err(KernelError::Inconsistent { tensor, found_kind, found, expected });
        }
    }
    if let Some(first) = first {
        expect("first", first, &[Kind::Int64], &[batch])?;
    }
    let function = function_for(&ATTEND, q)?;
    let q = aligned(q)?;
    let out = q.f_empty_like()?;
    let mut arguments = Vec::from([&q, keys, values, &out, place].map(Argument::Tensor));
    arguments.push(Argument::from(first));
    arguments.extend([&parts.scratch, &parts.arrived].map(Argument::Tensor));
    let window = window.map_or(0, |window| window.clamp(1, i64::from(i32::MAX)));
    arguments.extend([heads, kv_heads, room, width, window].map(|number| Argument::Int(number as i32)));
    let group = heads / kv_heads;
    let tile = if group <= 2 { group } else { TILE };
    let blocks = [splits, kv_heads * tiles(heads, kv_heads), batch].map(|count| count as u32);
    let shared_bytes = (16 * tile * (width + 2)) as u32;
    // SAFETY: these are attend_one's parameters, and the tensors have the shapes that it tells.
    unsafe { function.launch(Grid { blocks, threads: ATTEND_THREADS, shared_bytes }, &arguments)? };
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_cut_where_there_are_few_and_where_they_are_long() {
        assert_eq!(splits(8, 544), 17);
        assert_eq!(splits(8, 8192), 64);
        assert_eq!(splits(64, 544), 8);
        assert_eq!(splits(256, 544), 2);
        assert_eq!(splits(4096, 544), 1);
        assert_eq!(splits(1, 1), 1);
    }

    #[test]
    fn a_group_is_dealt_out_to_blocks() {
        assert_eq!(
            [(8, 8), (8, 4), (28, 4), (32, 8), (64, 8)].map(|(heads, kv)| tiles(heads, kv)),
            [1, 1, 2, 1, 2]
        );
    }
}
