//! The tensors of a quantized weight.

use tch::{Kind, TchError, Tensor};

use crate::nf4::Absmax;
use crate::{bitstream, packing};

/// The codes of a weight and their scales. Unless there are zeros, weight = code · scale.
#[derive(Debug)]
pub enum Codes {
    /// [`crate::Scheme::LlmInt8`]: weight = code · absmax / 127.
    LlmInt8 {
        /// i8 [N, K].
        weight: Tensor,
        /// f32 `[N]`: the largest magnitude of each output channel.
        absmax: Tensor,
        /// Activations of this magnitude and more are outliers; 0: none is.
        threshold: f64,
    },
    /// [`crate::Scheme::Nf4`].
    Nf4 {
        /// u8 [⌈N·K/2⌉], see [`mod@crate::nf4`].
        packed: Tensor,
        /// Of each block.
        absmax: Absmax,
        /// Weights that share a scale, an even number.
        block: i64,
        /// The floating-point type that activations are cast to and weights are dequantized to.
        compute: Kind,
    },
    /// [`crate::Scheme::W8A8`].
    Int8 {
        /// i8 [N, K].
        weight: Tensor,
        /// Floating point [N, 1].
        scale: Tensor,
    },
    /// [`crate::Scheme::W4A16`].
    Int4 {
        /// i32 [N, ⌈K/8⌉], see [`packing`].
        packed: Tensor,
        /// Floating point [N, K/group].
        scale: Tensor,
        /// Input channels that share a scale.
        group: i64,
    },
    /// [`crate::Scheme::W4A16Asym`]: weight = (code - zero) · scale.
    Int4Asym {
        /// i32 [N, ⌈K/8⌉], see [`packing`].
        packed: Tensor,
        /// Floating point [N, K/group].
        scale: Tensor,
        /// i8 [N, K/group], codes: from -8 to 7.
        zero: Tensor,
        /// Input channels that share a scale.
        group: i64,
    },
    /// [`crate::Scheme::WeightOnly`]: weight = (code - zero) · scale, codes from 0.
    Bits {
        /// i32 [N, ⌈K · bits / 32⌉], see [`mod@bitstream`].
        packed: Tensor,
        /// From 1 to 8.
        bits: u32,
        /// Floating point [N, K/group].
        scale: Tensor,
        /// u8 [N, K/group], codes; `None`: half of 2^bits everywhere.
        zero: Option<Tensor>,
        /// Input channels that share a scale.
        group: i64,
    },
    /// [`crate::Scheme::W8A8Static`].
    Int8Static {
        /// i8 [N, K].
        weight: Tensor,
        /// Floating point [N, 1].
        scale: Tensor,
        /// Floating point `[1]`: the scale of the activations.
        input_scale: Tensor,
    },
    /// [`crate::Scheme::W8A16`].
    Int8A16 {
        /// i8 [N, K].
        weight: Tensor,
        /// Floating point [N, 1].
        scale: Tensor,
    },
    /// [`crate::Scheme::W8A8Torchao`].
    Int8Torchao {
        /// i8 [N, K].
        weight: Tensor,
        /// Floating point [N, 1].
        scale: Tensor,
    },
    /// [`crate::Scheme::W4A8`]: weight = (code - zero) · group scale · channel scale, see [`mod@crate::progressive`].
    Progressive {
        /// i32 [N, ⌈K/8⌉], see [`packing`].
        packed: Tensor,
        /// i8 [N, K/group].
        group_scale: Tensor,
        /// i8 [N, K/group].
        group_zero: Tensor,
        /// Floating point [N, 1].
        channel_scale: Tensor,
        /// Input channels that share an integer scale.
        group: i64,
    },
    /// [`crate::Scheme::W4A8Float`].
    Int4A8 {
        /// i32 [N, ⌈K/8⌉], see [`packing`].
        packed: Tensor,
        /// Floating point [N, K/group].
        scale: Tensor,
        /// Input channels that share a scale.
        group: i64,
    },
}

impl Codes {
    /// The tensor that has a code for every weight.
    pub(super) fn stored(&self) -> &Tensor {
        match self {
            Self::LlmInt8 { weight, .. }
            | Self::Int8 { weight, .. }
            | Self::Int8Static { weight, .. }
            | Self::Int8A16 { weight, .. }
            | Self::Int8Torchao { weight, .. } => weight,
            Self::Nf4 { packed, .. }
            | Self::Int4 { packed, .. }
            | Self::Int4Asym { packed, .. }
            | Self::Bits { packed, .. }
            | Self::Progressive { packed, .. }
            | Self::Int4A8 { packed, .. } => packed,
        }
    }

    /// Weights of `bits` bits, from 1 to 8, packed as [`mod@bitstream`] does, with scales [N, K/group] and zero points,
    /// u8 [N, K/group], codes from 0: 4 bits have kernels of their own.
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    pub fn weight_only(
        packed: Tensor,
        bits: u32,
        scale: Tensor,
        zero: Option<Tensor>,
        group: i64,
    ) -> Result<Self, TchError> {
        Ok(match (bits, zero) {
            (4, None) => Self::Int4 { packed, scale, group },
            (4, Some(zero)) => {
                let zero = zero.f_to_kind(Kind::Int8)?.f_sub_scalar(packing::OFFSET)?;
                Self::Int4Asym { packed, scale, zero, group }
            }
            // A scale an output channel: bytes, which have a kernel of their own as well.
            (8, None) if scale.size2()?.1 == 1 => {
                let codes = bitstream::unpack(&packed, bits, group)?.f_to_kind(Kind::Int16)?;
                let weight = codes.f_sub_scalar(128)?.f_to_kind(Kind::Int8)?;
                Self::Int8A16 { weight, scale }
            }
            (bits, zero) => Self::Bits { packed, bits, scale, zero, group },
        })
    }
}
