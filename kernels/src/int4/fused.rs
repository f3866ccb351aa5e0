//! 4-bit weights on a CPU, straight from compressed-tensors' packing.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::cpu::Isa;
use crate::cpu::dot_float::{self, Block, Nibbles};
use crate::cpu::few::{MOST_ROWS, Row};
use crate::cpu::float::Float;
use crate::cpu::nibbles::{CHUNK, Order, pair};
use crate::cpu::view::{Floats, elements};
use crate::cpu::weight_only::{Channels, Scratch, Stored, WeightOnly};
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::packing;
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// Groups of whole chunks; every floating-point type and number of rows. The weight in memory is the one that was handed
/// over, with its scales in the activations' type.
#[derive(Debug)]
pub(crate) struct Fused;

impl Kernel for Fused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half() && layer.group().is_some_and(|group| group % CHUNK as i64 == 0)
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let (packed, scale, zero, group) = match weight.codes() {
            Codes::Int4 { packed, scale, group } => (packed, scale, None, *group),
            Codes::Int4Asym { packed, scale, zero, group } => (packed, scale, Some(zero), *group),
            _ => unreachable!("the table has it for W4A16 only"),
        };
        let stored = Packed {
            bytes: packing::bytes(packed)?,
            scale: scale.f_to_kind(layer.kind)?.f_contiguous()?,
            zero: zero.map(|zero| packing::bytes(&packing::pack(zero)?)).transpose()?,
            group: group as usize,
        };
        Ok(Box::new(WeightOnly::new(stored, weight.bias(), layer.kind)?))
    }
}

#[derive(Debug)]
struct Packed {
    /// u8 [N, K/2].
    bytes: Tensor,
    /// [N, K/g] in the activations' type.
    scale: Tensor,
    /// The codes that stand for zero, packed as the others are: u8 [N, ⌈K/g/8⌉ · 4].
    zero: Option<Tensor>,
    group: usize,
}

impl Stored for Packed {
    const FEW_ROWS: usize = 16;

    fn rows_at_once(&self, kind: Kind, isa: Isa) -> usize {
        dot_float::rows_at_once(kind, self.group, isa)
    }

    type View<'a> = View<'a>;

    fn view(&self) -> View<'_> {
        View {
            bytes: elements(&self.bytes),
            scale: Floats::of(&self.scale),
            zero: self.zero.as_ref().map(elements),
            shape: (self.bytes.size()[0] as usize, 2 * self.bytes.size()[1] as usize),
            group: self.group,
        }
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.bytes, &self.scale].into_iter().chain(&self.zero))
    }
}

/// [`Packed`] as threads read it.
struct View<'a> {
    bytes: &'a [u8],
    scale: Floats<'a>,
    zero: Option<&'a [u8]>,
    shape: (usize, usize),
    group: usize,
}

impl View<'_> {
    fn block<'s>(&'s self, channels: Range<usize>, scratch: &'s mut Scratch) -> Block<'s> {
        let (out_features, in_features) = self.shape;
        let groups = in_features / self.group;
        self.scale.copy(channels.start * groups..channels.end * groups, &mut scratch.scales);
        if let Some(zero) = self.zero {
            let width = zero.len() / out_features;
            let rows = zero[channels.start * width..channels.end * width].chunks_exact(width);
            let codes = |row: &'s [u8]| row.iter().flat_map(|&byte| pair(byte, Order::LowFirst)).take(groups);
            scratch.zeros.clear();
            scratch.zeros.extend(rows.flat_map(codes));
        }
        Block {
            in_features,
            bytes: &self.bytes[channels.start * in_features / 2..channels.end * in_features / 2],
            group: self.group,
            scales: &scratch.scales,
            nibbles: Nibbles::Integers { zeros: self.zero.map(|_| scratch.zeros.as_slice()) },
        }
    }
}

impl Channels for View<'_> {
    type Row = Row;

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn row<T: Float>(&self, values: &[T], isa: Isa) -> Row {
        dot_float::row(values, Order::LowFirst, self.group, isa)
    }

    fn products(
        &self,
        rows: &[Row],
        channels: Range<usize>,
        scratch: &mut Scratch,
        isa: Isa,
        found: &mut [[f32; MOST_ROWS]],
    ) {
        dot_float::four_bits(rows, self.block(channels, scratch), isa, found);
    }

    fn unpack<T: Float, V: Float>(&self, channel: usize, scratch: &mut Scratch, weights: &mut [V], isa: Isa) {
        let channel = self.block(channel..channel + 1, scratch).only();
        dot_float::unpack_four_bits::<T, V>(channel, Order::LowFirst, weights, isa);
    }
}
