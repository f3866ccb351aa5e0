//! W8A16 on a CPU: few rows straight from the codes, strips or tiles for many.

use tch::Tensor;

use crate::cpu::Isa;
use crate::cpu::dot_float::{self, ROWS};
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
    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn ordered(&self, row: Vec<f32>, _: Isa) -> Vec<f32> {
        row
    }

    fn products(&self, rows: &[&[f32]], channel: usize, _: &mut Scratch, isa: Isa) -> [f32; ROWS] {
        let scale = self.scale.at(channel);
        dot_float::eight_bits(rows, self.channel(channel), isa).map(|product| product * scale)
    }

    fn unpack<T: Float, V: Float>(&self, channel: usize, _: &mut Scratch, weights: &mut [V], isa: Isa) {
        dot_float::unpack_eight_bits::<T, V>(self.channel(channel), self.scale.at(channel), weights, isa);
    }
}
