//! Attention by the outer products of AVX-512 ([`super::outer_wide`]), as FlashAttention goes about it (Dao, 2023, arXiv
//! 2307.08691): a block of queries goes over the keys and values once, some at a time, and scores never stand in memory for more than that.
//!
//! ```text
//! keys, values of a head ─► packed: strips of 32 keys ──┐
//! queries ─► block of up to 12 ─────────────────────────┴─► scores ─► softmax so far ─► values so far ─► y
//! ```
//!
//! In bfloat16 scores are sums of products of pairs, as those of layers are. In both types they, their softmax, and its products with the values are
//! float32; the result is rounded once.
//!
//! What a sequence shares with the others of its batch, a prefix, comes before its own keys in the same pass. It is packed once, for all batches
//! behind it.

mod block;
mod heads;
mod packed;

use std::ops::Range;

use half::bf16;
use tch::{Device, Kind, TchError, Tensor};

use self::block::{Block, Part, Query};
use self::heads::Heads;
use self::packed::Packed;
use super::fours::ROWS;
use super::outer_wide::Factor;
use super::shared::Shared;
use super::threads::{ALONE, VALUES_ALONE, in_parts, parts};
use super::view::{Columns, Element};
use crate::attention::{Seen, View};

/// The heads of a prefix.
#[derive(Debug)]
pub(crate) struct PackedPrefix {
    heads: Vec<Packed>,
    width: usize,
    kind: Kind,
}

impl PackedPrefix {
    /// Of keys and values [1, kv_heads, P, D].
    ///
    /// # Safety
    ///
    /// The processor has the unit, see [`super::outer_wide::is_best`].
    pub(crate) unsafe fn new(keys: &Tensor, values: &Tensor) -> Result<Self, TchError> {
        match keys.kind() {
            // SAFETY: the caller promises it.
            Kind::BFloat16 => unsafe { Self::of::<bf16>(keys, values) },
            // SAFETY: likewise.
            _ => unsafe { Self::of::<f32>(keys, values) },
        }
    }

    unsafe fn of<T: Factor>(keys: &Tensor, values: &Tensor) -> Result<Self, TchError> {
        let keys_values = heads_of::<T>((keys, values))?;
        let [sequences, count, tokens, width] = keys_values.0.size();
        assert!(sequences == 1 && keys_values.1.size() == keys_values.0.size());
        let mut heads: Vec<Packed> = Vec::new();
        heads.resize_with(count, Packed::default);
        let shared = Shared::new(&mut heads);
        in_parts(count, 1, VALUES_ALONE / (tokens * width).max(1), |part| {
            for head in part {
                // SAFETY: each head is given to one thread; the caller promises the unit.
                unsafe { shared.part(head, 1)[0].fill(&keys_values, 0, head) };
            }
        });
        Ok(Self { heads, width, kind: T::KIND })
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.heads.iter().map(Packed::bytes).sum()
    }
}

/// See [`crate::attention::attend`].
///
/// # Safety
///
/// The processor has the unit, see [`super::outer_wide::is_best`].
pub(crate) unsafe fn attend(
    queries: &Tensor,
    prefix: Option<&PackedPrefix>,
    own: (&Tensor, &Tensor),
    seen: &Seen,
) -> Result<Tensor, TchError> {
    match queries.kind() {
        // SAFETY: the caller promises it.
        Kind::BFloat16 => unsafe { attend_in::<bf16>(queries, prefix, own, seen) },
        // SAFETY: likewise.
        _ => unsafe { attend_in::<f32>(queries, prefix, own, seen) },
    }
}

unsafe fn attend_in<T: Factor>(
    queries: &Tensor,
    prefix: Option<&PackedPrefix>,
    own: (&Tensor, &Tensor),
    seen: &Seen,
) -> Result<Tensor, TchError> {
    let (sequences, heads, tokens, width) = queries.size4()?;
    let mut y = Tensor::f_empty([sequences, tokens, heads * width], (T::KIND, Device::Cpu))?;
    let work = Work::new(Heads::<T>::new(queries)?, prefix, heads_of(own)?, seen, Columns::new(&mut y));
    let products = work.tokens * work.group * work.keys() * work.queries.width();
    in_parts(work.units(), 1, ALONE * work.divisions / products.max(1), |units| {
        // SAFETY: the caller promises it.
        unsafe { work.attend(units) }
    });
    Ok(y)
}

/// Fewer are not worth packing keys and values for.
const LEAST_BLOCKS: usize = 8;

/// Keys and values.
type KeysValues<'a, T> = (Heads<'a, T>, Heads<'a, T>);

fn heads_of<'a, T: Element>((keys, values): (&'a Tensor, &'a Tensor)) -> Result<KeysValues<'a, T>, TchError> {
    Ok((Heads::new(keys)?, Heads::new(values)?))
}

struct Work<'a, T> {
    queries: Heads<'a, T>,
    prefix: Option<&'a PackedPrefix>,
    own: KeysValues<'a, T>,
    seen: &'a Seen,
    /// [B · T, heads · D].
    y: Columns<T>,
    tokens: usize,
    /// Query heads of a key head.
    group: usize,
    /// Into so many units the queries of a sequence and key head are divided.
    divisions: usize,
}

impl<'a, T: Factor> Work<'a, T> {
    fn new(
        queries: Heads<'a, T>,
        prefix: Option<&'a PackedPrefix>,
        own: KeysValues<'a, T>,
        seen: &'a Seen,
        y: Columns<T>,
    ) -> Self {
        let [sequences, heads, tokens, width] = queries.size();
        let [_, key_heads, keys, _] = own.0.size();
        let group = heads / key_heads;
        assert!(own.0.size() == [sequences, key_heads, keys, width] && own.0.size() == own.1.size());
        assert!(heads == group * key_heads && seen.fits(sequences, tokens, keys));
        if let Some(prefix) = prefix {
            assert!((prefix.heads.len(), prefix.width, prefix.kind) == (key_heads, width, T::KIND));
        }
        let most = group * tokens / (LEAST_BLOCKS * ROWS);
        let divisions = parts().div_ceil((sequences * key_heads).max(1)).clamp(1, most.max(1));
        Self { queries, prefix, own, seen, y, tokens, group, divisions }
    }

    /// Keys that a query may see.
    fn keys(&self) -> usize {
        let [_, _, own, _] = self.own.0.size();
        own + self.prefix.and_then(|prefix| prefix.heads.first()).map_or(0, Packed::keys)
    }

    /// Key heads by sequences by divisions: neighbours have the same prefix, and often the same keys.
    fn units(&self) -> usize {
        let [sequences, key_heads, _, _] = self.own.0.size();
        key_heads * sequences * self.divisions
    }

    /// # Safety
    ///
    /// The processor has the unit.
    unsafe fn attend(&self, units: Range<usize>) {
        let [sequences, _, _, width] = self.own.0.size();
        let (mut own, mut held) = (Packed::default(), None);
        let mut block = Block::new(width);
        for unit in units {
            let (division, unit) = (unit % self.divisions, unit / self.divisions);
            let (sequence, head) = (unit % sequences, unit / sequences);
            if held.replace(unit) != Some(unit) {
                // SAFETY: the caller promises it.
                unsafe { own.fill(&self.own, sequence, head) };
            }
            let before = self.prefix.map(|prefix| &prefix.heads[head]);
            let rows = self.group * self.tokens;
            let bound = |division: usize| rows * division / self.divisions;
            for some in evenly(bound(division)..bound(division + 1)) {
                let query = |row: usize| {
                    let (head, token) = (head * self.group + row / self.tokens, row % self.tokens);
                    let values = self.queries.row([sequence, head, token]);
                    // SAFETY: the output outlives the call, and each head of a token is given out once.
                    let y = unsafe { self.y.part(sequence * self.tokens + token, head * width, width) };
                    Query { values, sees: self.seen.by(sequence, token), y }
                };
                let mut queries: Vec<Query<'_, T>> = some.map(query).collect();
                let before = before.map(|held| Part { held, sees: Some(View::First(held.keys())) });
                let parts = before.into_iter().chain([Part { held: &own, sees: None }]);
                // SAFETY: the caller promises it.
                unsafe { block.attend(&mut queries, parts) };
            }
        }
    }
}

/// Rows in blocks of about equal size.
fn evenly(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let blocks = rows.len().div_ceil(ROWS);
    let bound = move |block: usize| rows.start + rows.len() * block / blocks;
    (0..blocks).map(move |block| bound(block)..bound(block + 1))
}
