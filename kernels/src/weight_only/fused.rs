//! Weights of 1 to 8 bits on a CPU, straight from the stream of bits.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::cpu::Isa;
use crate::cpu::dot_bits::{self, Codes as BitCodes, Groups};
use crate::cpu::few::{MOST_ROWS, Row};
use crate::cpu::float::Float;
use crate::cpu::view::{Floats, elements};
use crate::cpu::weight_only::{Channels, Scratch, Stored, WeightOnly};
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// Every group, floating-point type and number of rows. The weight in memory is the one that was handed over, with its scales in the
/// activations' type.
#[derive(Debug)]
pub(crate) struct Fused;

impl Kernel for Fused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half()
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::Bits { packed, bits, scale, zero, group } = weight.codes() else {
            unreachable!("the table has it for weight-only schemes only");
        };
        let stored = Stream {
            words: packed.f_contiguous()?,
            bits: *bits,
            scale: scale.f_to_kind(layer.kind)?.f_contiguous()?,
            zero: zero.as_ref().map(Tensor::f_contiguous).transpose()?,
            group: *group as usize,
            in_features: weight.in_features() as usize,
        };
        Ok(Box::new(WeightOnly::new(stored, weight.bias(), layer.kind)?))
    }
}

#[derive(Debug)]
struct Stream {
    /// i32 [N, ⌈K · bits / 32⌉].
    words: Tensor,
    bits: u32,
    /// [N, K/g] in the activations' type.
    scale: Tensor,
    /// u8 [N, K/g]; `None`: half of 2^bits everywhere.
    zero: Option<Tensor>,
    group: usize,
    in_features: usize,
}

impl Stored for Stream {
    const FEW_ROWS: usize = 16;

    fn rows_at_once(&self, kind: Kind, isa: Isa) -> usize {
        dot_bits::rows_at_once(kind, self.group, isa)
    }

    type View<'a> = View<'a>;

    fn view(&self) -> View<'_> {
        let size = self.words.size();
        View {
            words: elements(&self.words),
            width: size[1] as usize,
            scale: Floats::of(&self.scale),
            zero: self.zero.as_ref().map(elements),
            shape: (size[0] as usize, self.in_features),
            group: self.group,
            bits: self.bits,
        }
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.words, &self.scale].into_iter().chain(&self.zero))
    }
}

/// [`Stream`] as threads read it.
struct View<'a> {
    words: &'a [i32],
    /// Words of an output channel.
    width: usize,
    scale: Floats<'a>,
    zero: Option<&'a [u8]>,
    shape: (usize, usize),
    group: usize,
    bits: u32,
}

impl View<'_> {
    /// The codes of `channel` and what they stand for; scales and zero points in `scratch`.
    fn channel<'s>(&'s self, channel: usize, scratch: &'s mut Scratch) -> (BitCodes<'s>, Groups<'s>) {
        let (_, in_features) = self.shape;
        let count = in_features / self.group;
        let groups = channel * count..(channel + 1) * count;
        self.scale.copy(groups.clone(), &mut scratch.scales);
        scratch.zeros.clear();
        match self.zero {
            Some(zero) => scratch.zeros.extend_from_slice(&zero[groups]),
            None => scratch.zeros.resize(count, 1 << (self.bits - 1)),
        }
        // With those of the channels after it, so that whole vectors can be read.
        let words = &self.words[channel * self.width..];
        let groups = Groups { size: self.group, scales: &scratch.scales, zeros: &scratch.zeros };
        (BitCodes { words, bits: self.bits }, groups)
    }
}

impl Channels for View<'_> {
    type Row = Row;

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn row<T: Float>(&self, values: &[T], isa: Isa) -> Row {
        dot_bits::row(values, self.group, isa)
    }

    fn products(
        &self,
        rows: &[Row],
        channels: Range<usize>,
        scratch: &mut Scratch,
        isa: Isa,
        found: &mut [[f32; MOST_ROWS]],
    ) {
        let mut read = std::mem::take(&mut scratch.codes);
        for (channel, found) in channels.zip(found) {
            let (codes, groups) = self.channel(channel, scratch);
            dot_bits::products(rows, codes, groups, &mut read, isa, found);
        }
        scratch.codes = read;
    }

    fn unpack<T: Float, V: Float>(&self, channel: usize, scratch: &mut Scratch, weights: &mut [V], isa: Isa) {
        let mut read = std::mem::take(&mut scratch.codes);
        let (codes, groups) = self.channel(channel, scratch);
        dot_bits::unpack::<T, V>(codes, groups, weights, &mut read, isa);
        scratch.codes = read;
    }
}
