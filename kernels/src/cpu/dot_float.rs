//! Products of some rows with output channels of four-bit codes, straight from their bytes.
//!
//! Codes of a group are multiplied and summed, and sums are scaled: no weight is ever rounded. Only activations in bfloat16 meet weights in
//! bfloat16 where the processor multiplies pairs of these ([`pairs`]).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod pairs;

use tch::Kind;

#[cfg(target_arch = "x86_64")]
use super::few::with_rows;
use super::few::{self, MOST_ROWS, Row};
use super::float::Float;
use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::nibbles::by_half_word;
use super::nibbles::{BYTES, CHUNK, Order, RUN, by_word, interleaved, pair};
#[cfg(target_arch = "x86_64")]
use super::view::{same, same_mut};

/// What four bits stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nibbles<'a> {
    /// Themselves, less the code of zero of each group.
    Integers {
        /// `[K / group]`; absent: 8.
        zeros: Option<&'a [u8]>,
    },
    /// Entries of a table.
    Table(&'a Table),
}

/// What sixteen codes stand for.
#[derive(Debug)]
pub(crate) struct Table {
    values: [f32; 16],
    /// The bytes of the values, the lowest of all first.
    planes: [[u8; 16]; 4],
}

impl Table {
    /// Of these values.
    pub(crate) const fn new(values: [f32; 16]) -> Self {
        let mut planes = [[0; 16]; 4];
        let mut code = 0;
        while code < 16 {
            let bytes = values[code].to_bits().to_le_bytes();
            let mut byte = 0;
            while byte < 4 {
                planes[byte][code] = bytes[byte];
                byte += 1;
            }
            code += 1;
        }
        Self { values, planes }
    }
}

/// Output channels of four-bit codes, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    /// K.
    pub(crate) in_features: usize,
    /// [C, K / 2].
    pub(crate) bytes: &'a [u8],
    /// Input channels that share a scale, whole chunks.
    pub(crate) group: usize,
    /// [C, K / group].
    pub(crate) scales: &'a [f32],
    /// What codes stand for; zeros [C, K / group].
    pub(crate) nibbles: Nibbles<'a>,
}

impl<'a> Block<'a> {
    /// The only one of a block of one.
    pub(crate) fn only(self) -> Channel<'a> {
        let Self { in_features, bytes, group, scales, nibbles } = self;
        debug_assert!(2 * bytes.len() == in_features);
        Channel { bytes, group, scales, nibbles }
    }

    /// Each of them.
    #[inline(always)]
    fn channels(self) -> impl Iterator<Item = Channel<'a>> {
        let groups = self.in_features / self.group;
        let each = self.bytes.chunks_exact(self.in_features / 2).zip(self.scales.chunks_exact(groups));
        each.enumerate().map(move |(index, (bytes, scales))| Channel {
            bytes,
            group: self.group,
            scales,
            nibbles: match self.nibbles {
                Nibbles::Integers { zeros: Some(zeros) } => {
                    Nibbles::Integers { zeros: Some(&zeros[index * groups..][..groups]) }
                }
                other => other,
            },
        })
    }
}

/// One output channel of four-bit codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel<'a> {
    /// [K / 2].
    bytes: &'a [u8],
    /// Input channels that share a scale, whole chunks.
    group: usize,
    /// [K / group].
    scales: &'a [f32],
    /// What codes stand for.
    nibbles: Nibbles<'a>,
}

/// So many rows of a type are multiplied at once by codes in groups of so many.
pub(crate) fn rows_at_once(kind: Kind, group: usize, isa: Isa) -> usize {
    few::rows_at_once(kind, meets_pairs(group), isa)
}

/// Whether activations in bfloat16 meet codes in groups of so many as pairs, where the processor multiplies these.
fn meets_pairs(group: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    return pairs::serves(group);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = group;
        false
    }
}

/// The activations of a row in the order that [`four_bits`] wants, for a matrix with groups of so many.
pub(crate) fn row<T: Float>(values: &[T], order: Order, group: usize, isa: Isa) -> Row {
    #[cfg(target_arch = "x86_64")]
    if meets_pairs(group)
        && let Some(row) = Row::paired(values, isa, |values| by_half_word(values, order))
    {
        return row;
    }
    let values: Vec<f32> = values.iter().map(|value| value.wide()).collect();
    let _ = group;
    Row::Floats(match isa {
        Isa::Portable | Isa::Avx2 => interleaved(&values, order, RUN),
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx => by_word(&values, order),
    })
}

/// The products of `rows` (at most as many as [`rows_at_once`] says, all of one type) with the output channels of `block`, to `found`.
pub(crate) fn four_bits(rows: &[Row], block: Block<'_>, isa: Isa, found: &mut [[f32; MOST_ROWS]]) {
    let Block { in_features, group, .. } = block;
    assert!(group.is_multiple_of(CHUNK) && in_features.is_multiple_of(group));
    assert!(block.bytes.len() * 2 == in_features * found.len());
    assert!(block.scales.len() * group == in_features * found.len());
    assert!((1..=MOST_ROWS).contains(&rows.len()) && rows.iter().all(|row| row.len() >= in_features));
    #[cfg(target_arch = "x86_64")]
    if let [Row::Pairs(_), ..] = rows {
        // SAFETY: such a row is made where `isa` says that the processor has AVX-512, and it has BF16 besides.
        return unsafe { with_rows!(8: rows, Row::pairs, |rows| pairs::four_bits(rows, block, found)) };
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        // SAFETY: `isa` says that the processor has AVX-512.
        return unsafe { with_rows!(4: rows, Row::floats, |rows| avx512::four_bits(rows, block, found)) };
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        // SAFETY: `isa` says that the processor has AVX2 and FMA.
        return unsafe { with_rows!(4: rows, Row::floats, |rows| avx2::four_bits(rows, block, found)) };
    }
    let _ = isa;
    for (channel, found) in block.channels().zip(found) {
        for (row, found) in rows.iter().zip(found) {
            *found = plain(row.floats(), channel);
        }
    }
}

/// The product of a row with `channel`.
fn plain(row: &[f32], channel: Channel<'_>) -> f32 {
    let groups = row.chunks_exact(channel.group).zip(channel.bytes.chunks_exact(channel.group / 2));
    let of_group = |(index, (x, bytes)): (usize, (&[f32], &[u8]))| -> f32 {
        let value = |code: u8| match channel.nibbles {
            Nibbles::Integers { zeros } => {
                f32::from(code as i8 - zeros.map_or(8, |zeros| zeros[index]) as i8)
            }
            Nibbles::Table(table) => table.values[usize::from(code)],
        };
        let chunks = x.chunks_exact(CHUNK).zip(bytes.chunks_exact(BYTES));
        let of_chunk = |(x, bytes): (&[f32], &[u8])| -> f32 {
            let runs = x.chunks_exact(2 * RUN).zip(bytes.chunks_exact(RUN));
            let of_run = |(x, bytes): (&[f32], &[u8])| -> f32 {
                let (low, high) = x.split_at(RUN);
                let halves = bytes.iter().zip(low.iter().zip(high));
                halves.map(|(byte, (low, high))| low * value(byte & 15) + high * value(byte >> 4)).sum()
            };
            runs.map(of_run).sum()
        };
        channel.scales[index] * chunks.map(of_chunk).sum::<f32>()
    };
    groups.enumerate().map(of_group).sum()
}

/// The weights of `channel`, `[K]` in their own order, rounded to the type `T` and held in the type `V`.
pub(crate) fn unpack_four_bits<T: Float, V: Float>(
    channel: Channel<'_>,
    order: Order,
    weights: &mut [V],
    isa: Isa,
) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<T: Float, V: Float>(channel: Channel<'_>, order: Order, weights: &mut [V]) {
            unpack::<T, V>(channel, weights, |values, bytes, weights| {
                match (same(values), same_mut(weights)) {
                    (Some(values), Some(weights)) => avx2::look_up(values, bytes, order, weights),
                    _ => look_up(values, bytes, order, weights),
                }
            });
        }
        if isa >= Isa::Avx512
            && T::KIND == Kind::BFloat16
            && let Some(weights) = same_mut(weights)
        {
            // SAFETY: `isa` says that the processor has AVX-512.
            return unsafe { avx512::unpack_four_bits(channel, order, weights) };
        }
        // SAFETY: `isa` says that the processor has AVX2 and FMA.
        return unsafe { with_avx2::<T, V>(channel, order, weights) };
    }
    let _ = isa;
    unpack::<T, V>(channel, weights, |values, bytes, weights| {
        look_up(values, bytes, order, weights);
    });
}

#[inline(always)]
fn unpack<T: Float, V: Float>(
    channel: Channel<'_>,
    weights: &mut [V],
    look_up: impl Fn(&[V; 16], &[u8], &mut [V]),
) {
    let groups = weights.chunks_exact_mut(channel.group).zip(channel.bytes.chunks_exact(channel.group / 2));
    for (index, (weights, bytes)) in groups.enumerate() {
        let scale = channel.scales[index];
        // Of sixteen codes, once for the group.
        let values: [V; 16] = std::array::from_fn(|code| {
            let value = match channel.nibbles {
                Nibbles::Integers { zeros } => {
                    code as f32 - zeros.map_or(8.0, |zeros| f32::from(zeros[index]))
                }
                Nibbles::Table(table) => table.values[code],
            };
            V::narrow(T::rounded(value * scale))
        });
        look_up(&values, bytes, weights);
    }
}

/// Of each code in `bytes` its value.
#[inline(always)]
fn look_up<V: Copy>(values: &[V; 16], bytes: &[u8], order: Order, weights: &mut [V]) {
    for (weights, &byte) in weights.chunks_exact_mut(2).zip(bytes) {
        let [first, second] = pair(byte, order);
        weights[0] = values[usize::from(first)];
        weights[1] = values[usize::from(second)];
    }
}
