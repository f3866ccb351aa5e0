//! A quantized linear layer as data.

use std::fmt;

use tch::{Kind, TchError, Tensor};

use crate::cuda::CudaError;
use crate::nf4::Absmax;
use crate::{bitstream, nf4, packing, progressive};

/// How a linear layer is stored and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// int8 weights and activations, each with the largest magnitude of its row; outlier input channels in floating
    /// point (see [`mod@crate::llm_int8`]).
    LlmInt8,
    /// 4-bit codes of a table with one scale for `block` consecutive weights (see [`mod@nf4`]); activations in floating
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
    /// channel (see [`mod@progressive`]); int8 activations with one scale a token, computed at run time; int32
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

/// Why a weight cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The tensors contradict each other.
    #[error("{tensor} has type {found_kind:?} and shape {found:?}, expected {expected}")]
    Inconsistent {
        /// Its name: `weight`, `packed`, `scale`.
        tensor: &'static str,
        /// Its type.
        found_kind: Kind,
        /// Its shape.
        found: Vec<i64>,
        /// What fits.
        expected: String,
    },
    /// A block that does not fill bytes.
    #[error("a block of {block} weights is not a positive even number")]
    Block {
        /// Weights that share a scale.
        block: i64,
    },
    /// A layer without channels.
    #[error("a layer of {out_features} output and {in_features} input channels has no weights")]
    Empty {
        /// N.
        out_features: i64,
        /// K.
        in_features: i64,
    },
    /// The group size does not divide the input channels.
    #[error("a group of {group} does not divide {in_features} input channels")]
    Group {
        /// Input channels that share a scale.
        group: i64,
        /// K.
        in_features: i64,
    },
    /// An order of input channels that leaves some out.
    #[error("the order of {in_features} input channels is no permutation of them")]
    Order {
        /// K.
        in_features: i64,
    },
    /// Integer scales and zeros of groups that take codes out of int8.
    #[error("{count} pairs of group_scale and group_zero take 4-bit codes out of the range of int8")]
    BeyondInt8 {
        /// How many.
        count: i64,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TchError),
    /// A kernel of our own on CUDA failed.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

/// The codes of a weight and their scales. Unless there are zeros, weight = code · scale.
#[derive(Debug)]
pub enum Codes {
    /// [`Scheme::LlmInt8`]: weight = code · absmax / 127.
    LlmInt8 {
        /// i8 [N, K].
        weight: Tensor,
        /// f32 `[N]`: the largest magnitude of each output channel.
        absmax: Tensor,
        /// Activations of this magnitude and more are outliers; 0: none is.
        threshold: f64,
    },
    /// [`Scheme::Nf4`].
    Nf4 {
        /// u8 [⌈N·K/2⌉], see [`mod@nf4`].
        packed: Tensor,
        /// Of each block.
        absmax: Absmax,
        /// Weights that share a scale, an even number.
        block: i64,
        /// The floating-point type that activations are cast to and weights are dequantized to.
        compute: Kind,
    },
    /// [`Scheme::W8A8`].
    Int8 {
        /// i8 [N, K].
        weight: Tensor,
        /// Floating point [N, 1].
        scale: Tensor,
    },
    /// [`Scheme::W4A16`].
    Int4 {
        /// i32 [N, ⌈K/8⌉], see [`packing`].
        packed: Tensor,
        /// Floating point [N, K/group].
        scale: Tensor,
        /// Input channels that share a scale.
        group: i64,
    },
    /// [`Scheme::W4A16Asym`]: weight = (code - zero) · scale.
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
    /// [`Scheme::WeightOnly`]: weight = (code - zero) · scale, codes from 0.
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
    /// [`Scheme::W8A8Static`].
    Int8Static {
        /// i8 [N, K].
        weight: Tensor,
        /// Floating point [N, 1].
        scale: Tensor,
        /// Floating point `[1]`: the scale of the activations.
        input_scale: Tensor,
    },
    /// [`Scheme::W8A16`].
    Int8A16 {
        /// i8 [N, K].
        weight: Tensor,
        /// Floating point [N, 1].
        scale: Tensor,
    },
    /// [`Scheme::W8A8Torchao`].
    Int8Torchao {
        /// i8 [N, K].
        weight: Tensor,
        /// Floating point [N, 1].
        scale: Tensor,
    },
    /// [`Scheme::W4A8`]: weight = (code - zero) · group scale · channel scale, see [`mod@progressive`].
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
    /// [`Scheme::W4A8Float`].
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

/// A linear layer with few bits a weight, as checkpoints store it.
#[derive(Debug)]
pub struct QuantizedWeight {
    codes: Codes,
    bias: Option<Tensor>,
    out_features: i64,
    in_features: i64,
    input_order: Option<Tensor>,
}

impl QuantizedWeight {
    /// A layer of `out_features` (N) by `in_features` (K), with a floating-point bias `[N]`.
    ///
    /// # Errors
    ///
    /// A tensor of another type or shape than [`Codes`] says, or a group that does not divide K.
    pub fn new(
        codes: Codes,
        bias: Option<Tensor>,
        out_features: i64,
        in_features: i64,
    ) -> Result<Self, KernelError> {
        if out_features < 1 || in_features < 1 {
            return Err(KernelError::Empty { out_features, in_features });
        }
        match &codes {
            Codes::LlmInt8 { weight, absmax, .. } => {
                expect("weight", weight, &[Kind::Int8], &[out_features, in_features])?;
                expect("absmax", absmax, &[Kind::Float], &[out_features])?;
            }
            Codes::Nf4 { packed, absmax, block, .. } => {
                expect_nf4(packed, absmax, *block, out_features * in_features)?;
            }
            Codes::Int8 { weight, scale }
            | Codes::Int8A16 { weight, scale }
            | Codes::Int8Torchao { weight, scale } => {
                expect("weight", weight, &[Kind::Int8], &[out_features, in_features])?;
                expect("scale", scale, FLOATS, &[out_features, 1])?;
            }
            Codes::Int4 { packed, scale, group } | Codes::Int4A8 { packed, scale, group } => {
                expect_packed(packed, *group, out_features, in_features)?;
                expect("scale", scale, FLOATS, &[out_features, in_features / group])?;
            }
            Codes::Int4Asym { packed, scale, zero, group } => {
                expect_packed(packed, *group, out_features, in_features)?;
                let groups = [out_features, in_features / group];
                expect("scale", scale, FLOATS, &groups)?;
                expect("zero", zero, &[Kind::Int8], &groups)?;
            }
            Codes::Bits { packed, bits, scale, zero, group } => {
                let words = bitstream::words(in_features, *bits);
                expect_group(*group, in_features)?;
                expect("packed", packed, &[Kind::Int], &[out_features, words])?;
                let groups = [out_features, in_features / group];
                expect("scale", scale, FLOATS, &groups)?;
                if let Some(zero) = zero {
                    expect("zero", zero, &[Kind::Uint8], &groups)?;
                }
            }
            Codes::Int8Static { weight, scale, input_scale } => {
                expect("weight", weight, &[Kind::Int8], &[out_features, in_features])?;
                expect("scale", scale, FLOATS, &[out_features, 1])?;
                expect("input_scale", input_scale, FLOATS, &[1])?;
            }
            Codes::Progressive { packed, group_scale, group_zero, channel_scale, group } => {
                expect_packed(packed, *group, out_features, in_features)?;
                let groups = [out_features, in_features / group];
                expect("group_scale", group_scale, &[Kind::Int8], &groups)?;
                expect("group_zero", group_zero, &[Kind::Int8], &groups)?;
                expect("channel_scale", channel_scale, FLOATS, &[out_features, 1])?;
                let count = progressive::beyond_int8(group_scale, group_zero)?;
                if count > 0 {
                    return Err(KernelError::BeyondInt8 { count });
                }
            }
        }
        if let Some(bias) = &bias {
            expect("bias", bias, FLOATS, &[out_features])?;
        }
        Ok(Self { codes, bias, out_features, in_features, input_order: None })
    }

    /// The same with its input channels in another order: channel k of the codes is channel `order`\[k\] of the
    /// activations. That is how the scattered groups of GPTQ's `desc_act` come to stand side by side.
    ///
    /// # Errors
    ///
    /// If `order`, i64 `[K]`, is no permutation.
    pub fn with_input_order(mut self, order: Tensor) -> Result<Self, KernelError> {
        let in_features = self.in_features;
        expect("order", &order, &[Kind::Int64], &[in_features])?;
        let (sorted, _) = order.f_sort(0, false)?;
        if !sorted.equal(&Tensor::f_arange(in_features, (Kind::Int64, order.device()))?) {
            return Err(KernelError::Order { in_features });
        }
        self.input_order = Some(order);
        Ok(self)
    }

    /// See [`QuantizedWeight::with_input_order`].
    pub fn input_order(&self) -> Option<&Tensor> {
        self.input_order.as_ref()
    }

    /// Codes and scales.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// `[N]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// N.
    pub fn out_features(&self) -> i64 {
        self.out_features
    }

    /// K.
    pub fn in_features(&self) -> i64 {
        self.in_features
    }

    /// How it is stored and multiplied.
    pub fn scheme(&self) -> Scheme {
        match &self.codes {
            Codes::LlmInt8 { .. } => Scheme::LlmInt8,
            Codes::Nf4 { absmax, block, .. } => Scheme::Nf4 { block: *block, nested: absmax.is_nested() },
            Codes::Int8 { .. } => Scheme::W8A8,
            Codes::Int4 { group, .. } => Scheme::W4A16 { group: *group },
            Codes::Int4Asym { group, .. } => Scheme::W4A16Asym { group: *group },
            Codes::Bits { bits, zero, group, .. } => {
                Scheme::WeightOnly { bits: *bits, group: *group, asym: zero.is_some() }
            }
            Codes::Int8Static { .. } => Scheme::W8A8Static,
            Codes::Int8A16 { .. } => Scheme::W8A16,
            Codes::Int8Torchao { .. } => Scheme::W8A8Torchao,
            Codes::Progressive { group, .. } => Scheme::W4A8 { group: *group },
            Codes::Int4A8 { group, .. } => Scheme::W4A8Float { group: *group },
        }
    }
}

const FLOATS: &[Kind] = &[Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double];

/// An error unless `packed` holds the codes of an [N, K] weight and `group` divides K.
fn expect_packed(
    packed: &Tensor,
    group: i64,
    out_features: i64,
    in_features: i64,
) -> Result<(), KernelError> {
    expect_group(group, in_features)?;
    expect("packed", packed, &[Kind::Int], &[out_features, packing::words(in_features)])
}

/// An error unless `group` divides K.
fn expect_group(group: i64, in_features: i64) -> Result<(), KernelError> {
    if group < 1 || in_features % group != 0 {
        return Err(KernelError::Group { group, in_features });
    }
    Ok(())
}

/// An error unless `packed` and `absmax` hold `weights` NF4 weights.
fn expect_nf4(packed: &Tensor, absmax: &Absmax, block: i64, weights: i64) -> Result<(), KernelError> {
    if block < 2 || block % 2 != 0 {
        return Err(KernelError::Block { block });
    }
    expect("packed", packed, &[Kind::Uint8], &[(weights + 1) / 2])?;
    let blocks = nf4::blocks(weights, block);
    match absmax {
        Absmax::Plain(values) => expect("absmax", values, &[Kind::Float], &[blocks]),
        Absmax::Nested { code, map, scale, .. } => {
            expect("absmax", code, &[Kind::Uint8], &[blocks])?;
            expect("nested map", map, &[Kind::Float], &[256])?;
            expect("nested scale", scale, &[Kind::Float], &[nf4::blocks(blocks, nf4::NESTED_BLOCK)])
        }
    }
}

/// An error unless `tensor` has one of these types, and this shape.
pub(crate) fn expect(
    name: &'static str,
    tensor: &Tensor,
    kinds: &[Kind],
    shape: &[i64],
) -> Result<(), KernelError> {
    if kinds.contains(&tensor.kind()) && tensor.size() == shape {
        return Ok(());
    }
    let kind = if kinds.len() == 1 { format!("{:?}", kinds[0]) } else { "floating point".to_owned() };
    Err(KernelError::Inconsistent {
        tensor: name,
        found_kind: tensor.kind(),
        found: tensor.size(),
        expected: format!("{kind} {shape:?}"),
    })
}

/// Bytes of a tensor's elements.
pub(crate) fn bytes_of<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> u64 {
    tensors.into_iter().map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum()
}
