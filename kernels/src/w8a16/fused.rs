//! W8A16 on a CPU: few rows straight from the codes, strips or tiles for many.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::cpu::Isa;
use crate::cpu::dot_bytes;
use crate::cpu::few::{self, MOST_ROWS, Row};
use crate::cpu::float::Float;
use crate::cpu::view::{Floats, elements};
use crate::cpu::weight_only::{Channels, Scratch, Stored, WeightOnly};
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// Every floating-point type and number of rows.
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
        let Codes::Int8A16 { weight: codes, scale } = weight.codes() else {
            unreachable!("the table has it for W8A16 only");
        };
        let stored = Bytes {
            codes: codes.f_contiguous()?,
            scale: scale.f_to_kind(layer.kind)?.f_view([-1])?.f_contiguous()?,
        };
        Ok(Box::new(WeightOnly::new(stored, weight.bias(), layer.kind)?))
    }
}

#[derive(Debug)]
struct Bytes {
    /// i8 [N, K].
    codes: Tensor,
    /// `[N]` in the activations' type.
    scale: Tensor,
}

impl Stored for Bytes {
    const FEW_ROWS: usize = 16;

    fn rows_at_once(&self, kind: Kind, isa: Isa) -> usize {
        few::rows_at_once(kind, true, isa)
    }

    type View<'a> = View<'a>;

    fn view(&self) -> View<'_> {
        View {
            codes: elements(&self.codes),
            scale: Floats::of(&self.scale),
            shape: (self.codes.size()[0] as usize, self.codes.size()[1] as usize),
        }
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.codes, &self.scale])
    }
}

/// [`Bytes`] as threads read it.
struct View<'a> {
    codes: &'a [i8],
    scale: Floats<'a>,
    shape: (usize, usize),
}

impl View<'_> {
    fn channel(&self, channel: usize) -> &[i8] {
        &self.codes[channel * self.shape.1..][..self.shape.1]
    }
}

impl Channels for View<'_> {
    type Row = Row;

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn row<T: Float>(&self, values: &[T], isa: Isa) -> Row {
        Row::in_order(values, true, isa)
    }

    fn products(
        &self,
        rows: &[Row],
        channels: Range<usize>,
        _: &mut Scratch,
        isa: Isa,
        found: &mut [[f32; MOST_ROWS]],
    ) {
        for (channel, found) in channels.zip(found) {
            let scale = self.scale.at(channel);
            dot_bytes::products(rows, self.channel(channel), isa, found);
            for product in &mut found[..rows.len()] {
                *product *= scale;
            }
        }
    }

    fn unpack<T: Float, V: Float>(&self, channel: usize, _: &mut Scratch, weights: &mut [V], isa: Isa) {
        dot_bytes::unpack::<T, V>(self.channel(channel), self.scale.at(channel), weights, isa);
    }
}
