//! Which tokens see which, worked out once for all layers of a forward pass.

use qpipe_kernels::Multiplier;
use qpipe_kernels::attention::{Seen, can_attend};
use tch::{Device, Kind, Tensor};

use super::config::Config;
use super::shared_prefix;

/// Which tokens a token may attend to. With T new tokens and S = cached + T tokens in all:
#[derive(Debug)]
pub enum Attention {
    /// Those before it in its row, and itself. Padding must stand at the end of a row.
    Causal,
    /// Those marked true: bool [B, 1, T, S] (B or T may be 1 where all are equal). Every row needs a true.
    /// This is how several continuations share one prompt: each sees the prompt and itself. Tokens of a shared prefix
    /// ([`super::Past::shared_tokens`]) are not in S: all of them are seen.
    Mask(Tensor),
    /// One new token a row, which sees those before it; how many these are stands on the card. Only with a past that has
    /// [`super::Past::next`], and without an observer; a pass panics with another.
    Next,
}

impl Attention {
    /// That of the tokens at `places` in their rows, i64 [B, W], of the T `new` ones among S: a mask of W rows.
    ///
    /// # Panics
    ///
    /// If it is [`Attention::Next`].
    pub(super) fn at(&self, places: &Tensor, (new, all): (i64, i64)) -> Self {
        let (batch, wanted) = (places.size()[0], places.size()[1]);
        let places = places.view([batch, 1, wanted, 1]);
        Self::Mask(match self {
            Self::Mask(mask) => {
                let mask = mask.expand([batch, 1, new, all], false);
                mask.gather(2, &places.expand([batch, 1, wanted, all], false), false)
            }
            Self::Causal => {
                Tensor::arange(all, (Kind::Int64, places.device())).le_tensor(&(places + (all - new)))
            }
            Self::Next => unreachable!("of one token nothing is left out"),
        })
    }
}

/// An [`Attention`] worked out for one forward pass, in the form that is cheapest to compute.
#[derive(Debug)]
pub(super) enum Pattern {
    /// Everything: one new token.
    Full,
    /// The same, where the card alone knows how much that is.
    Next,
    /// The lower triangle, T = S; where there is what is added to the scores of the second half of the queries, as in `Mask`, the first half
    /// sees the keys of its own half only.
    Triangle(Option<Tensor>),
    /// Added to the scores of all queries of a group, in the model's type, [B, 1, group * T, S]: 0 what is seen, -∞ what
    /// is not. Worked out once for all layers.
    Mask(Tensor),
    /// All of a shared prefix, and of the tokens after it what this mask says, as above, or those before in the row.
    AfterPrefix(Option<Tensor>),
    /// For our own kernel: what is seen of the keys.
    Ours {
        /// Of T queries and S keys.
        seen: Seen,
        /// S are those after a shared prefix, all of which is seen.
        is_after_prefix: bool,
    },
}

/// libtorch's kernel for a CPU leaves out keys that none of its queries sees, so many at a time.
const KEYS_AT_ONCE: i64 = 512;
/// Up to so many tokens a second call costs what it saves.
const FEW_TOKENS: i64 = 256;

impl Pattern {
    /// The lower triangle of `tokens` tokens.
    pub(super) fn triangle(tokens: i64, device: Device, group: i64, kind: Kind) -> Self {
        let is_divided = device == Device::Cpu && tokens > FEW_TOKENS && tokens <= KEYS_AT_ONCE;
        let of_second_half = || triangle(tokens - tokens / 2, tokens, device);
        Self::Triangle(is_divided.then(|| added(&of_second_half(), group, kind)))
    }

    /// `mask` is bool [B, 1, T, S].
    fn of(mask: &Tensor, group: i64, kind: Kind) -> Self {
        Self::Mask(added(mask, group, kind))
    }

    /// For our own kernel: of so many queries and keys.
    fn ours(attention: &Attention, (queries, keys): (i64, i64), is_after_prefix: bool) -> Self {
        let (queries, keys) = (queries as usize, keys as usize);
        let seen = match attention {
            Attention::Causal => Seen::before(queries, keys),
            Attention::Mask(mask) => Seen::marked(mask, queries).expect("a mask is [B, 1, T, S]"),
            Attention::Next => unreachable!("a single query makes no block"),
        };
        Self::Ours { seen, is_after_prefix }
    }

    /// Whether a shared prefix comes by itself, before the keys that are seen by this.
    pub(super) fn is_after_prefix(&self) -> bool {
        matches!(self, Self::AfterPrefix(_) | Self::Ours { is_after_prefix: true, .. })
    }
}

/// What is added to the scores of all queries of a group where `mask` says what they see.
fn added(mask: &Tensor, group: i64, kind: Kind) -> Tensor {
    let seen = Tensor::zeros(mask.size(), (kind, mask.device()));
    let seen = seen.masked_fill(&mask.logical_not(), f64::NEG_INFINITY);
    seen.repeat([1, 1, group, 1])
}

/// What is computed with what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    /// The model's.
    pub(super) config: &'a Config,
    /// The type of queries, keys and values.
    pub(super) kind: Kind,
    /// Who multiplies in attention.
    pub(super) attention: Multiplier,
}

/// The patterns of one forward pass: layers differ only in whether they have a sliding window.
#[derive(Debug)]
pub(super) struct Patterns {
    plain: Pattern,
    windowed: Option<Pattern>,
}

impl Patterns {
    /// `queries` i64 [B, T] and `keys` i64 [B, S] are positions, the first `shared` of S those of a shared prefix.
    pub(super) fn new(
        attention: &Attention,
        (queries, keys): (&Tensor, &Tensor),
        shared: i64,
        setting: Setting<'_>,
    ) -> Self {
        if let Attention::Next = attention {
            return Self { plain: Pattern::Next, windowed: None };
        }
        let Setting { config, kind, attention: multiplier } = setting;
        let (device, group) = (queries.device(), config.group_size());
        let (new, all) = (queries.size()[1], keys.size()[1]);
        let triangle = || triangle(new, all, device);
        let whole = |mask: &Tensor| behind_prefix(mask, shared);
        let is_ours = can_attend(new, kind, device, multiplier);
        let plain = match attention {
            _ if is_ours => Pattern::ours(attention, (new, all - shared), shared > 0),
            _ if shared > 0 && shared_prefix::is_possible(device) => Pattern::AfterPrefix(match attention {
                Attention::Mask(mask) => Some(added(mask, group, kind)),
                Attention::Causal | Attention::Next => None,
            }),
            Attention::Mask(mask) => Pattern::of(&whole(mask), group, kind),
            Attention::Causal if new == 1 => Pattern::Full,
            Attention::Causal if new == all => Pattern::triangle(new, device, group, kind),
            Attention::Causal | Attention::Next => Pattern::of(&triangle(), group, kind),
        };
        // Positions in a row are at most S - 1 apart, so a window of S or more hides nothing.
        let window = config.windows.iter().flatten().copied().find(|&window| window < all);
        let windowed = window.map(|window| {
            let near = (queries.unsqueeze(2) - keys.unsqueeze(1)).lt(window).unsqueeze(1);
            let seen = match attention {
                Attention::Mask(mask) => near.logical_and(&whole(mask)),
                Attention::Causal if new == 1 => near,
                Attention::Causal | Attention::Next => near.logical_and(&triangle()),
            };
            match is_ours {
                true => Pattern::ours(&Attention::Mask(seen), (new, all), false),
                false => Pattern::of(&seen, group, kind),
            }
        });
        Self { plain, windowed }
    }

    /// That of a layer with this window.
    pub(super) fn of_layer(&self, window: Option<i64>) -> &Pattern {
        match (&self.windowed, window) {
            (Some(windowed), Some(_)) => windowed,
            _ => &self.plain,
        }
    }
}

/// bool [1, 1, T, S], true where key <= query, the queries being the last T of S tokens.
fn triangle(new: i64, all: i64, device: Device) -> Tensor {
    Tensor::ones([1, 1, new, all], (Kind::Bool, device)).tril(all - new)
}

/// `mask`, bool [B, 1, T, S], behind the `shared` tokens of a prefix, which all see.
fn behind_prefix(mask: &Tensor, shared: i64) -> Tensor {
    if shared == 0 {
        return mask.shallow_clone();
    }
    let mut prefix = mask.size();
    prefix[3] = shared;
    Tensor::cat(&[&Tensor::ones(prefix.as_slice(), (Kind::Bool, mask.device())), mask], 3)
}
