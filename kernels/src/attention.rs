//! Scaled dot product attention where libtorch's was made for other processors.

use tch::{Device, Kind, TchError, Tensor};

#[cfg(target_arch = "x86_64")]
use crate::cpu::{self, Isa};
use crate::product::Multiplier;

/// Keys in a word of a mask.
pub(crate) const KEYS: usize = u32::BITS as usize;

/// Which keys each of T queries may see, of S. What no query of a block sees is not computed.
#[derive(Debug)]
pub struct Seen {
    queries: usize,
    keys: usize,
    /// [B or 1, T, S / 32], the first key in the lowest bit; without one, those before a query and itself, the queries being the last T of S.
    words: Option<Vec<u32>>,
}

impl Seen {
    /// Those before a query and itself, the `queries` being the last of `keys` tokens.
    ///
    /// # Panics
    ///
    /// If there are more queries than keys.
    pub fn before(queries: usize, keys: usize) -> Self {
        assert!(queries <= keys, "a query is itself a key");
        Self { queries, keys, words: None }
    }

    /// What `mask` marks, bool [B or 1, 1, T or 1, S], for T `queries`.
    ///
    /// # Errors
    ///
    /// Another shape, and libtorch's.
    pub fn marked(mask: &Tensor, queries: usize) -> Result<Self, TchError> {
        let (batch, _, _, keys) = mask.size4()?;
        let mask = mask.f_expand([batch, 1, queries as i64, keys], false)?;
        let marks = Vec::<bool>::try_from(mask.f_reshape([-1])?)?;
        let word = |marks: &[bool]| {
            let bits = (0..).zip(marks).map(|(bit, &mark)| u32::from(mark) << bit);
            bits.fold(0, |word, bit| word | bit)
        };
        let of_query = marks.chunks((keys as usize).max(1));
        let words = of_query.flat_map(|marks| marks.chunks(KEYS).map(word)).collect();
        Ok(Self { queries, keys: keys as usize, words: Some(words) })
    }

    /// T and S.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.queries, self.keys)
    }

    /// What a query of a sequence sees.
    pub(crate) fn by(&self, sequence: usize, query: usize) -> View<'_> {
        match &self.words {
            None => View::First(self.keys - self.queries + query + 1),
            Some(words) => {
                let count = self.keys.div_ceil(KEYS);
                // One mask may be for all sequences.
                let start = (sequence * self.queries + query) * count % words.len().max(1);
                View::Marked(&words[start..][..count])
            }
        }
    }
}

/// What a query sees.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    /// So many keys.
    First(usize),
    /// By words of a mask.
    Marked(&'a [u32]),
}

impl View<'_> {
    /// Of the keys from 32 · `index` on, the first in the lowest bit.
    #[inline]
    pub(crate) fn word(self, index: usize) -> u32 {
        match self {
            Self::First(count) => match count.saturating_sub(KEYS * index) {
                0 => 0,
                count => u32::MAX >> KEYS.saturating_sub(count),
            },
            Self::Marked(words) => words[index],
        }
    }
}

/// Whether [`attend`] is here for so many tokens a sequence, and faster than libtorch: in float32 and bfloat16 on a CPU with AVX-512 BF16
/// and no AMX. As with libtorch's own operations, QPIPE_CPU and QPIPE_KERNELS have no say: they choose among kernels for weights, whose
/// effects are to be compared in whole models, and in bfloat16 what differs in one place differs in all that follow.
pub fn can_attend(tokens: i64, kind: Kind, device: Device, multiplier: Multiplier) -> bool {
    let is_possible = multiplier == Multiplier::Fastest
        && matches!(kind, Kind::Float | Kind::BFloat16)
        && device == Device::Cpu;
    // A single query makes no block.
    is_possible && tokens > 1 && is_best()
}

#[cfg(target_arch = "x86_64")]
fn is_best() -> bool {
    cpu::outer_wide::is_best(Isa::of_hardware())
}

#[cfg(not(target_arch = "x86_64"))]
fn is_best() -> bool {
    false
}

/// softmax(Q Kᵀ / √D) V of `queries` [B, kv_heads · group, T, D] and of two parts of the keys and values: a `prefix`
/// [1, kv_heads, P, D] that all see, and a row's `own` [B, kv_heads, S, D], of which `seen` says what each query sees. Every query sees a key.
/// All of one type, float32 or bfloat16, on a CPU, without gaps in their last dimension. Gives [B, T, heads · D].
///
/// # Errors
///
/// Only libtorch's.
///
/// # Panics
///
/// If shapes do not fit each other, where [`can_attend`] says no, and where gradients are wanted.
pub fn attend(
    queries: &Tensor,
    prefix: Option<(&Tensor, &Tensor)>,
    own: (&Tensor, &Tensor),
    seen: &Seen,
) -> Result<Tensor, TchError> {
    assert!(is_best(), "`can_attend` says whether this can be called");
    let parts = [Some(own), prefix].into_iter().flatten().flat_map(|(keys, values)| [keys, values]);
    assert!(parts.chain([queries]).all(|part| !part.requires_grad()), "no gradients come through this");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the unit is here.
    return unsafe { cpu::attention::attend(queries, prefix, own, seen) };
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("it is best nowhere: {queries:?} {prefix:?} {own:?} {seen:?}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// The same in float64, keys and values of a prefix first.
    fn plainly(queries: &Tensor, (keys, values): (&Tensor, &Tensor), seen: &Tensor) -> Tensor {
        let wide = |tensor: &Tensor| tensor.to_kind(Kind::Double);
        let group = queries.size()[1] / keys.size()[1];
        let each = |tensor: &Tensor| wide(tensor).repeat_interleave_self_int(group, 1, None);
        let scores = wide(queries).matmul(&each(keys).transpose(2, 3)) / (queries.size()[3] as f64).sqrt();
        let scores = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY);
        scores.softmax(-1, Kind::Double).matmul(&each(values)).transpose(1, 2).flatten(2, 3)
    }

    /// Queries, keys and values as projections leave them: sequences, key heads, query heads of each, tokens, width.
    const SHAPES: [[i64; 5]; 6] = [
        [1, 1, 1, 2, 1],
        [3, 2, 1, 13, 64],
        [2, 1, 3, 40, 20],
        [2, 2, 2, 33, 128],
        [1, 3, 1, 700, 32],
        [5, 1, 1, 0, 8],
    ];

    #[test]
    #[expect(clippy::print_stderr, reason = "a test says what it could not try")]
    fn blocks_of_queries_are_one_softmax() {
        if !can_attend(2, Kind::Float, Device::Cpu, Multiplier::Fastest) {
            return eprintln!("skipped: this processor has no AVX-512 BF16, or multiplies bfloat16 in tiles");
        }
        tch::manual_seed(3);
        for kind in [Kind::Float, Kind::BFloat16] {
            for (shape, before) in
                SHAPES.into_iter().flat_map(|shape| [0, 1, 300].map(|before| (shape, before)))
            {
                let [sequences, key_heads, group, tokens, width] = shape;
                let random = |sequences, heads, tokens| {
                    let x = Tensor::randn([sequences, tokens, heads, width], CPU).to_kind(kind);
                    x.transpose(1, 2)
                };
                let queries = random(sequences, key_heads * group, tokens);
                let own = [(); 2].map(|()| random(sequences, key_heads, tokens));
                let prefix = [(); 2].map(|()| random(1, key_heads, before));
                let [keys, values] = [0, 1].map(|part| {
                    let prefix = prefix[part].expand([sequences, -1, -1, -1], false);
                    Tensor::cat(&[&prefix, &own[part]], 2)
                });
                for mask in masks(sequences, tokens) {
                    let seen = match &mask {
                        Some(mask) => Seen::marked(mask, tokens as usize).unwrap(),
                        None => Seen::before(tokens as usize, tokens as usize),
                    };
                    let prefix = (before > 0).then_some((&prefix[0], &prefix[1]));
                    let found = attend(&queries, prefix, (&own[0], &own[1]), &seen).unwrap();
                    let mask = mask.unwrap_or_else(|| triangle(tokens));
                    let mask = mask.expand([sequences, 1, tokens, tokens], false);
                    let all = Tensor::ones([sequences, 1, tokens, before], CPU).to_kind(Kind::Bool);
                    let expected = plainly(&queries, (&keys, &values), &Tensor::cat(&[&all, &mask], 3));
                    assert_eq!((found.size(), found.kind()), (expected.size(), kind));
                    // Rounded once.
                    let rounding = if kind == Kind::Float { 0.0 } else { 2_f64.powi(-8) };
                    let error = (found - &expected).abs() - expected.abs() * rounding;
                    assert!(error.le(3e-6).all().int64_value(&[]) == 1, "{kind:?} {shape:?} after {before}");
                }
            }
        }
    }

    /// None, one of each sequence and one of all, both random, and one that leaves out what comes first.
    fn masks(sequences: i64, tokens: i64) -> [Option<Tensor>; 4] {
        let random = |sequences| {
            let mask = Tensor::rand([sequences, 1, tokens, tokens], CPU).lt(0.2);
            mask.logical_or(&Tensor::eye(tokens, CPU).to_kind(Kind::Bool))
        };
        [None, Some(random(sequences)), Some(random(1)), Some(triangle(tokens).flip([2, 3]))]
    }

    /// bool [1, 1, T, T].
    fn triangle(tokens: i64) -> Tensor {
        Tensor::ones([1, 1, tokens, tokens], CPU).tril(0).to_kind(Kind::Bool)
    }
}
