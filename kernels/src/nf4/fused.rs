//! NF4 on a CPU, straight from bitsandbytes' packing: a code is looked up in registers.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{Absmax, NESTED_BLOCK, TABLE};
use crate::cpu::Isa;
use crate::cpu::dot_float::{self, Block, Nibbles, Table};
use crate::cpu::few::{MOST_ROWS, Row};
use crate::cpu::float::Float;
use crate::cpu::nibbles::{CHUNK, Order};
use crate::cpu::view::elements;
use crate::cpu::weight_only::{Channels, Scratch, Stored, WeightOnly};
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};

static LOOKUP: Table = Table::new(TABLE);

/// Blocks of whole chunks that end where rows end, computing in the activations' type.
#[derive(Debug)]
pub(crate) struct Fused;

impl Kernel for Fused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half()
            && layer.group().is_some_and(|block| block % CHUNK as i64 == 0 && layer.in_features % block == 0)
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::Nf4 { packed, absmax, block, compute } = weight.codes() else {
            unreachable!("the table has it for NF4 only");
        };
        let stored = Packed {
            bytes: packed.f_contiguous()?,
            absmax: absmax.to_device(Device::Cpu)?,
            block: *block as usize,
            shape: (weight.out_features() as usize, weight.in_features() as usize),
        };
        let prepared = WeightOnly::new(stored, weight.bias(), *compute)?;
        Ok(match *compute == layer.kind {
            true => Box::new(prepared),
            false => Box::new(Cast { prepared: prepared.rounded_after(), compute: *compute }),
        })
    }
}

/// A layer that computes in another type than its activations have.
#[derive(Debug)]
struct Cast {
    prepared: WeightOnly<Packed>,
    compute: Kind,
}

impl PreparedLinear for Cast {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.prepared.forward(&x.to_kind(self.compute)).to_kind(x.kind())
    }

    fn bytes(&self) -> u64 {
        self.prepared.bytes()
    }
}

#[derive(Debug)]
struct Packed {
    /// u8 [N·K/2].
    bytes: Tensor,
    absmax: Absmax,
    block: usize,
    /// N and K.
    shape: (usize, usize),
}

impl Stored for Packed {
    const FEW_ROWS: usize = 16;

    fn rows_at_once(&self, kind: Kind, isa: Isa) -> usize {
        dot_float::rows_at_once(kind, self.block, isa)
    }

    type View<'a> = View<'a>;

    fn view(&self) -> View<'_> {
        View {
            bytes: elements(&self.bytes),
            absmax: match &self.absmax {
                Absmax::Plain(values) => Magnitudes::Plain(elements(values)),
                Absmax::Nested { code, map, scale, offset } => Magnitudes::Nested {
                    code: elements(code),
                    map: elements(map).try_into().expect("a value for each byte"),
                    scale: elements(scale),
                    offset: *offset,
                },
            },
            block: self.block,
            shape: self.shape,
        }
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.bytes]) + self.absmax.bytes()
    }
}

/// [`Packed`] as threads read it.
struct View<'a> {
    bytes: &'a [u8],
    absmax: Magnitudes<'a>,
    block: usize,
    shape: (usize, usize),
}

/// [`Absmax`] as slices.
enum Magnitudes<'a> {
    Plain(&'a [f32]),
    Nested { code: &'a [u8], map: &'a [f32; 256], scale: &'a [f32], offset: f32 },
}

impl View<'_> {
    fn block<'s>(&'s self, channels: Range<usize>, scratch: &'s mut Scratch) -> Block<'s> {
        let in_features = self.shape.1;
        let blocks = in_features / self.block;
        let range = channels.start * blocks..channels.end * blocks;
        let scales = match self.absmax {
            Magnitudes::Plain(values) => &values[range],
            Magnitudes::Nested { code, map, scale, offset } => {
                let value = |(block, &code): (usize, &u8)| {
                    map[usize::from(code)] * scale[block / NESTED_BLOCK as usize] + offset
                };
                scratch.scales.clear();
                scratch.scales.extend(range.clone().zip(&code[range]).map(value));
                &scratch.scales
            }
        };
        let bytes = &self.bytes[channels.start * in_features / 2..channels.end * in_features / 2];
        Block { in_features, bytes, group: self.block, scales, nibbles: Nibbles::Table(&LOOKUP) }
    }
}

impl Channels for View<'_> {
    type Row = Row;

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn row<T: Float>(&self, values: &[T], isa: Isa) -> Row {
        dot_float::row(values, Order::HighFirst, self.block, isa)
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
        dot_float::unpack_four_bits::<T, V>(channel, Order::HighFirst, weights, isa);
    }
}
