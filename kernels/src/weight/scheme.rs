//! How weights are stored and multiplied.

use std::fmt;

/// How a linear layer is stored and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// int8 weights and activations, each with the largest magnitude of its row; outlier input channels in floating
    /// point (see [`mod@crate::llm_int8`]).
    LlmInt8,
    /// 4-bit codes of a table with one scale for `block` consecutive weights (see [`mod@crate::nf4`]); activations in floating
    /// point.
    Nf4 {
        /// Weights that share a scale.
        block: i64,
        /// Whether scales are in 8 bits.
        nested: bool,
    },
    /// int8 weights with one scale an output channel; int8 activations with one scale a token, computed at
    /// run time; int32 sums.
    W8A8,
    /// int4 weights with one scale for `group` consecutive input channels of an output channel; activations
    /// in floating point.
    W4A16 {
        /// Input channels that share a scale; K where an output channel has one scale.
        group: i64,
    },
    /// [`Scheme::W4A16`] with a zero point besides a scale.
    W4A16Asym {
        /// Input channels that share a scale; K where an output channel has one scale.
        group: i64,
    },
    /// [`Scheme::W4A16`] and [`Scheme::W4A16Asym`] in another number of bits.
    WeightOnly {
        /// From 1 to 8.
        bits: u32,
        /// Input channels that share a scale; K where an output channel has one scale.
        group: i64,
        /// Whether there are zero points.
        asym: bool,
    },
    /// int8 weights with one scale an output channel; activations in floating point.
    W8A16,
    /// [`Scheme::W8A8`] with one scale for all activations, found beforehand.
    W8A8Static,
    /// [`Scheme::W8A8`] with activations rounded as torchao rounds them (see [`mod@crate::torchao`]).
    W8A8Torchao,
    /// int4 weights that an integer scale and zero of their group make int8 weights of one scale an output
    /// channel (see [`mod@crate::progressive`]); int8 activations with one scale a token, computed at run time; int32
    /// sums.
    W4A8 {
        /// Input channels that share an integer scale.
        group: i64,
    },
    /// int4 weights with a floating-point scale for `group` consecutive input channels of an output channel;
    /// int8 activations with one scale a token, computed at run time; int32 sums a group.
    W4A8Float {
        /// Input channels that share a scale; K where an output channel has one scale.
        group: i64,
    },
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LlmInt8 => f.write_str("LLM.int8()"),
            Self::Nf4 { block, nested } => {
                f.write_str(if *nested { "NF4 double-quantized" } else { "NF4" })?;
                if *block == 64 { Ok(()) } else { write!(f, " b{block}") }
            }
            Self::W8A8 => f.write_str("W8A8"),
            Self::W4A16Asym { group } => write!(f, "W4A16 g{group} asym"),
            Self::WeightOnly { bits, group, asym } => {
                write!(f, "W{bits}A16 g{group}{}", if *asym { " asym" } else { "" })
            }
            Self::W8A16 => f.write_str("W8A16"),
            Self::W8A8Static => f.write_str("W8A8 static"),
            Self::W8A8Torchao => f.write_str("W8A8 torchao"),
            Self::W4A8 { group } => write!(f, "W4A8 g{group}"),
            Self::W4A8Float { group } => write!(f, "W4A8 g{group} float"),
            Self::W4A16 { group } => write!(f, "W4A16 g{group}"),
        }
    }
}

/// Schemes that kernels tell apart only by the group or the rounding that [`Scheme`] adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// [`Scheme::W8A8`], [`Scheme::W8A8Static`] and [`Scheme::W8A8Torchao`].
    W8A8,
    /// [`Scheme::W8A16`].
    W8A16,
    /// [`Scheme::LlmInt8`].
    LlmInt8,
    /// [`Scheme::W4A16`] and [`Scheme::W4A16Asym`].
    W4A16,
    /// [`Scheme::W4A8`].
    W4A8,
    /// [`Scheme::W4A8Float`].
    W4A8Float,
    /// [`Scheme::Nf4`].
    Nf4,
    /// [`Scheme::WeightOnly`].
    WeightOnly,
}

impl Scheme {
    /// What it is a member of.
    pub fn family(self) -> Family {
        match self {
            Self::W8A8 | Self::W8A8Static | Self::W8A8Torchao => Family::W8A8,
            Self::W8A16 => Family::W8A16,
            Self::LlmInt8 => Family::LlmInt8,
            Self::W4A16 { .. } | Self::W4A16Asym { .. } => Family::W4A16,
            Self::W4A8 { .. } => Family::W4A8,
            Self::W4A8Float { .. } => Family::W4A8Float,
            Self::Nf4 { .. } => Family::Nf4,
            Self::WeightOnly { .. } => Family::WeightOnly,
        }
    }

    /// Weights that share a scale, where that is no whole output channel.
    pub fn group(self) -> Option<i64> {
        match self {
            Self::Nf4 { block, .. } => Some(block),
            Self::W4A16 { group }
            | Self::W4A16Asym { group }
            | Self::WeightOnly { group, .. }
            | Self::W4A8 { group }
            | Self::W4A8Float { group } => Some(group),
            Self::W8A8 | Self::W8A16 | Self::W8A8Static | Self::W8A8Torchao | Self::LlmInt8 => None,
        }
    }
}
