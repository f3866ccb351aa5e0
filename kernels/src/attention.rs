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
    /// Without it, those before a query and itself, the queries being the last T of S.
    marks: Option<Marks>,
}

/// A mask in bits.
#[derive(Debug)]
struct Marks {
    /// B or 1: of all.
    sequences: usize,
    /// [sequences, T, ⌈S / 32⌉], the first key in the lowest bit.
    words: Vec<u32>,
}

impl Seen {
    /// Those before a query and itself, the `queries` being the last of `keys` tokens.
    ///
    /// # Panics
    ///
    /// If there are more queries than keys.
    pub fn before(queries: usize, keys: usize) -> Self {
        assert!(queries <= keys, "a query is itself a key");
        Self { queries, keys, marks: None }
    }

    /// What `mask` marks, bool [B or 1, 1, T or 1, S], for T `queries`.
    ///
    /// # Errors
    ///
    /// Another shape, and libtorch's.
    ///
    /// # Panics
    ///
    /// If it is of another type.
    pub fn marked(mask: &Tensor, queries: usize) -> Result<Self, TchError> {
        assert_eq!(mask.kind(), Kind::Bool, "a mask marks");
        let (batch, _, _, keys) = mask.size4()?;
        let mask = mask.f_expand([batch, 1, queries as i64, keys], false)?;
        let marks = Vec::<bool>::try_from(mask.f_reshape([-1])?)?;
        let word = |marks: &[bool]| {
            let bits = (0..).zip(marks).map(|(bit, &mark)| u32::from(mark) << bit);
            bits.fold(0, |word, bit| word | bit)
        };
        let of_query = marks.chunks((keys as usize).max(1));
        let words = of_query.flat_map(|marks| marks.chunks(KEYS).map(word)).collect();
        let marks = Marks { sequences: batch as usize, words };
        Ok(Self { queries, keys: keys as usize, marks: Some(marks) })
    }
}

#[cfg(target_arch = "x86_64")]
impl Seen {
    /// Whether it is of so many sequences, queries, and keys.
    pub(crate) fn fits(&self, sequences: usize, queries: usize, keys: usize) -> bool {
        let of_mask = self.marks.as_ref().map_or(1, |marks| marks.sequences);
        (self.queries, self.keys) == (queries, keys) && (of_mask == 1 || of_mask == sequences)
    }

    /// What a query of a sequence sees.
    pub(crate) fn by(&self, sequence: usize, query: usize) -> View<'_> {
        match &self.marks {
            None => View::First(self.keys - self.queries + query + 1),
            Some(marks) => {
                let sequence = if marks.sequences == 1 { 0 } else { sequence };
                let count = self.keys.div_ceil(KEYS);
                View::Marked(&marks.words[(sequence * self.queries + query) * count..][..count])
            }
        }
    }
}

/// What a query sees.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    /// So many keys.
    First(usize),
    /// By words of a mask.
    Marked(&'a [u32]),
}

#[cfg(target_arch = "x86_64")]
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
/// and no AMX. As with libtorch's own operations, QPIPE_CPU and QPIPE_KERNELS have no say: they are for comparing kernels for weights in whole models,
/// where a single bfloat16 that is rounded otherwise in the first layer moves every later one.
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

/// The keys and values of a prefix, in the order in which they are multiplied: for all passes behind it.
#[derive(Debug)]
pub struct PackedPrefix {
    #[cfg(target_arch = "x86_64")]
    packed: cpu::attention::PackedPrefix,
}

impl PackedPrefix {
    /// Of `keys` and `values` [1, kv_heads, P, D], float32 or bfloat16, on a CPU, without gaps in their last dimension.
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    ///
    /// # Panics
    ///
    /// If shapes do not fit each other, where [`can_attend`] says no, and where gradients are wanted.
    pub fn new(keys: &Tensor, values: &Tensor) -> Result<Self, TchError> {
        assert!(is_best(), "`can_attend` says whether this can be called");
        assert!(!keys.requires_grad() && !values.requires_grad(), "no gradients come through this");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the unit is here.
        return Ok(Self { packed: unsafe { cpu::attention::PackedPrefix::new(keys, values) }? });
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("it is best nowhere: {keys:?} {values:?}")
    }

    /// Bytes that it takes: values stand in float32.
    pub fn bytes(&self) -> usize {
        #[cfg(target_arch = "x86_64")]
        return self.packed.bytes();
        #[cfg(not(target_arch = "x86_64"))]
        return 0;
    }
}

/// softmax(Q Kᵀ / √D) V of `queries` [B, kv_heads · group, T, D] and of two parts of the keys and values: a `prefix`
/// that all see, and a row's `own` [B, kv_heads, S, D], of which `seen` says what each query sees. Every query sees a key; what
/// comes of one that sees none is NaN.
/// All of one type, float32 or bfloat16, on a CPU, without gaps in their last dimension. Gives [B, T, heads · D].
///
/// # Errors
///
/// Only libtorch's.
///
/// # Panics
///
/// If shapes or types do not fit each other, the prefix's among them, where [`can_attend`] says no, and where gradients are wanted.
pub fn attend(
    queries: &Tensor,
    prefix: Option<&PackedPrefix>,
    own: (&Tensor, &Tensor),
    seen: &Seen,
) -> Result<Tensor, TchError> {
    assert!(is_best(), "`can_attend` says whether this can be called");
    assert!(
        [queries, own.0, own.1].iter().all(|part| !part.requires_grad()),
        "no gradients come through this"
    );
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the unit is here.
    return unsafe { cpu::attention::attend(queries, prefix.map(|prefix| &prefix.packed), own, seen) };
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

    /// Sequences, key heads, query heads of each, tokens, keys before them, width.
    const SHAPES: [[i64; 6]; 8] = [
        [1, 1, 1, 2, 0, 1],
        [3, 2, 1, 13, 0, 64],
        [2, 1, 3, 40, 1, 20],
        [2, 2, 2, 33, 290, 128],
        [1, 3, 1, 700, 0, 32],
        [1, 1, 7, 30, 64, 80],
        [5, 1, 1, 0, 0, 8],
        [0, 1, 1, 4, 0, 8],
    ];

    #[expect(clippy::print_stderr, reason = "a test says what it could not try")]
    fn is_here() -> bool {
        let is_here = can_attend(2, Kind::Float, Device::Cpu, Multiplier::Fastest);
        if !is_here {
            eprintln!("skipped: this processor has no AVX-512 BF16, or multiplies bfloat16 in tiles");
        }
        is_here
    }

    /// As projections leave them.
    fn random(sequences: i64, heads: i64, tokens: i64, width: i64, kind: Kind) -> Tensor {
        Tensor::randn([sequences, tokens, heads, width], CPU).to_kind(kind).transpose(1, 2)
    }

    #[test]
    fn blocks_of_queries_are_one_softmax() {
        if !is_here() {
            return;
        }
        tch::manual_seed(3);
        for kind in [Kind::Float, Kind::BFloat16] {
            for (shape, before) in
                SHAPES.into_iter().flat_map(|shape| [0, 1, 300].map(|before| (shape, before)))
            {
                let [sequences, key_heads, group, tokens, cached, width] = shape;
                let all = cached + tokens;
                let queries = random(sequences, key_heads * group, tokens, width, kind);
                let own = [(); 2].map(|()| random(sequences, key_heads, all, width, kind));
                let prefix = [(); 2].map(|()| random(1, key_heads, before, width, kind));
                let [keys, values] = [0, 1].map(|part| {
                    let prefix = prefix[part].expand([sequences, -1, -1, -1], false);
                    Tensor::cat(&[&prefix, &own[part]], 2)
                });
                for (name, mask) in masks(sequences, tokens, all) {
                    let seen = match name {
                        "causal" => Seen::before(tokens as usize, all as usize),
                        _ => Seen::marked(&mask, tokens as usize).unwrap(),
                    };
                    let prefix = (before > 0).then(|| PackedPrefix::new(&prefix[0], &prefix[1]).unwrap());
                    let found = attend(&queries, prefix.as_ref(), (&own[0], &own[1]), &seen).unwrap();
                    let mask = mask.expand([sequences, 1, tokens, all], false);
                    let prefix = Tensor::ones([sequences, 1, tokens, before], CPU).to_kind(Kind::Bool);
                    let expected = plainly(&queries, (&keys, &values), &Tensor::cat(&[&prefix, &mask], 3));
                    assert_eq!((found.size(), found.kind()), (expected.size(), kind));
                    // Rounded once.
                    let rounding = if kind == Kind::Float { 0.0 } else { 2_f64.powi(-8) };
                    let error = (found - &expected).abs() - expected.abs() * rounding;
                    assert!(
                        error.le(3e-6).all().int64_value(&[]) == 1,
                        "{kind:?} {shape:?} after {before}, {name}"
                    );
                }
            }
        }
    }

    /// bool [B or 1, 1, T or 1, S].
    fn masks(sequences: i64, tokens: i64, keys: i64) -> [(&'static str, Tensor); 6] {
        let bools = |mask: Tensor| mask.to_kind(Kind::Bool);
        let ones = || Tensor::ones([1, 1, tokens, keys], CPU);
        let itself = bools(Tensor::eye(keys, CPU)).narrow(0, keys - tokens, tokens);
        let random = |sequences| Tensor::rand([sequences, 1, tokens, keys], CPU).lt(0.2).logical_or(&itself);
        let causal = bools(ones().tril(keys - tokens));
        [
            ("causal", causal.shallow_clone()),
            ("random", random(sequences)),
            ("one for all sequences", random(1)),
            ("one for all queries", bools(Tensor::ones([1, 1, 1, keys], CPU).tril(keys / 2))),
            // Strips before and behind it are seen by none.
            ("window", causal.logical_and(&bools(ones().triu(keys - tokens - 40)))),
            ("what comes later", bools(ones().triu(keys - tokens))),
        ]
    }

    /// Whatever stands beside a query, and however many threads there are.
    #[test]
    fn a_query_gets_the_same_bits_in_any_company() {
        if !is_here() {
            return;
        }
        tch::manual_seed(5);
        let (sequences, heads, tokens, width) = (4, 3, 70, 64);
        for kind in [Kind::Float, Kind::BFloat16] {
            let [queries, keys, values] = [(); 3].map(|()| random(sequences, heads, tokens, width, kind));
            let prefix = [(); 2].map(|()| random(1, heads, 400, width, kind));
            let prefix = PackedPrefix::new(&prefix[0], &prefix[1]).unwrap();
            let prefix = || Some(&prefix);
            for (name, mask) in masks(sequences, tokens, tokens) {
                let of = |mask: &Tensor| Seen::marked(mask, mask.size()[2].max(1) as usize).unwrap();
                if mask.size()[2] == 1 {
                    continue;
                }
                let together = attend(&queries, prefix(), (&keys, &values), &of(&mask)).unwrap();
                for sequence in 0..sequences {
                    let one = |tensor: &Tensor| tensor.narrow(0, sequence, 1);
                    let mask = if mask.size()[0] == 1 { mask.shallow_clone() } else { one(&mask) };
                    // The last tokens alone are other blocks.
                    let last = |tensor: &Tensor, dimension| tensor.narrow(dimension, tokens - 17, 17);
                    let found = attend(
                        &last(&one(&queries), 2),
                        prefix(),
                        (&one(&keys), &one(&values)),
                        &of(&last(&mask, 2)),
                    );
                    assert_eq!(found.unwrap(), last(&one(&together), 1), "{kind:?}, {name}");
                }
                tch::set_num_threads(3);
                assert_eq!(attend(&queries, prefix(), (&keys, &values), &of(&mask)).unwrap(), together);
                tch::set_num_threads(1);
                assert_eq!(attend(&queries, prefix(), (&keys, &values), &of(&mask)).unwrap(), together);
            }
        }
    }

    /// The largest score comes late, and others are nothing beside it.
    #[test]
    fn large_scores_do_not_overflow() {
        if !is_here() {
            return;
        }
        tch::manual_seed(7);
        let (tokens, width) = (600, 32);
        let [queries, keys, values] = [(); 3].map(|()| random(1, 2, tokens, width, Kind::Float));
        let growing = Tensor::arange(tokens, CPU).view([1, 1, tokens, 1]) * 0.1;
        let (queries, keys) = (queries * 30.0, keys * growing);
        let seen = Seen::before(tokens as usize, tokens as usize);
        let found = attend(&queries, None, (&keys, &values), &seen).unwrap();
        let expected = plainly(&queries, (&keys, &values), &masks(1, tokens, tokens)[0].1);
        // Scores of some thousands are known to 1e-3.
        assert!((found - expected).abs().max().double_value(&[]) < 1e-2);
    }

    #[test]
    fn what_is_not_a_number_stays_none() {
        if !is_here() {
            return;
        }
        let [queries, keys, values] = [(); 3].map(|()| random(1, 1, 40, 16, Kind::Float));
        let _ = keys.narrow(2, 20, 1).fill_(f64::NAN);
        let found = attend(&queries, None, (&keys, &values), &Seen::before(40, 40)).unwrap();
        let wrong = found.isnan().any_dim(-1, false).squeeze();
        assert_eq!(wrong, Tensor::arange(40, (Kind::Int64, Device::Cpu)).ge(20));
    }
}
