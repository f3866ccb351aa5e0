//! W4A8 on a CPU, straight from the packed codes: rows are quantized, multiplied as integers and scaled in one pass.
//!
//! For few rows each group's codes are multiplied as they are, from 0 to 15, and what the zero point adds is taken off:
//! exact integers either way. For many, the codes of some output channels become int8 in the cache and go the way of int8
//! weights.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::cpu::Isa;
use crate::cpu::dot::Weight;
use crate::cpu::dot_nibbles::{FewRows, FloatChannel, IntegerChannel};
use crate::cpu::float::{Float, for_kind};
use crate::cpu::gemm::{self, GroupedSink, Scratch, Sink, Source, put};
use crate::cpu::nibbles::{CHUNK, Order, pair};
use crate::cpu::rows::{Rows, Rule};
use crate::cpu::threads::{ALONE, in_parts};
use crate::cpu::view::{Columns, elements};
use crate::input::Input;
use crate::int8::fits_int32;
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::packing::{self, OFFSET};
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// Up to this many rows are multiplied from the packed codes: two blocks of them.
const FEW_ROWS: usize = 8;
/// In groups of one chunk with integer scales, which the int8 weights of the way for many rows have in them already.
const FEW_ROWS_OF_CHUNKS: usize = 4;
/// Output channels whose products with few rows become outputs together.
const CHANNELS: usize = 8;

/// Both kinds of 4-bit weights for int8 activations, in groups of whole chunks.
#[derive(Debug)]
pub(crate) struct Fused;

impl Kernel for Fused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half()
            && fits_int32(layer)
            && layer.group().is_some_and(|group| group % CHUNK as i64 == 0)
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let rounded = |scale: &Tensor| scale.f_to_kind(layer.kind)?.f_to_kind(Kind::Float)?.f_contiguous();
        let (packed, group, scaling) = match weight.codes() {
            Codes::Progressive { packed, group_scale, group_zero, channel_scale, group } => {
                let scaling = Scaling::Progressive {
                    group_scale: group_scale.f_contiguous()?,
                    group_zero: group_zero.f_add_scalar(OFFSET)?.f_contiguous()?,
                    channel_scale: channel_scale.f_to_kind(Kind::Float)?.f_view([-1])?.f_contiguous()?,
                };
                (packed, *group, scaling)
            }
            Codes::Int4A8 { packed, scale, group } => (packed, *group, Scaling::Float(rounded(scale)?)),
            _ => unreachable!("the table has it for W4A8 only"),
        };
        let bias = weight.bias().map(|bias| bias.f_to_kind(Kind::Float)?.f_contiguous()).transpose()?;
        Ok(Box::new(PreparedFused {
            bytes: packing::bytes(packed)?,
            group: group as usize,
            scaling,
            bias,
            isa: Isa::here(),
        }))
    }
}

/// What makes weights of codes.
#[derive(Debug)]
enum Scaling {
    /// [`mod@crate::progressive`].
    Progressive {
        /// i8 [N, K/g].
        group_scale: Tensor,
        /// i8 [N, K/g], for codes from 0 to 15.
        group_zero: Tensor,
        /// f32 `[N]`.
        channel_scale: Tensor,
    },
    /// f32 [N, K/g].
    Float(Tensor),
}

#[derive(Debug)]
struct PreparedFused {
    /// u8 [N, K/2].
    bytes: Tensor,
    group: usize,
    scaling: Scaling,
    /// f32 `[N]`.
    bias: Option<Tensor>,
    isa: Isa,
}

impl PreparedFused {
    fn view(&self) -> View<'_> {
        View {
            bytes: elements(&self.bytes),
            in_features: 2 * self.bytes.size()[1] as usize,
            group: self.group,
            scales: match &self.scaling {
                Scaling::Progressive { group_scale, group_zero, channel_scale } => Scales::Progressive {
                    group_scale: elements(group_scale),
                    group_zero: elements(group_zero),
                    channel_scale: elements(channel_scale),
                },
                Scaling::Float(scale) => Scales::Float(elements(scale)),
            },
            bias: self.bias.as_ref().map(elements),
            isa: self.isa,
        }
    }
}

impl PreparedLinear for PreparedFused {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_input(&Input::new(x))
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        let layer = self.view();
        let shape = (self.bytes.size()[0], layer.in_features as i64);
        let mut y = Tensor::empty(input.output_size(shape), (input.kind(), Device::Cpu));
        for_kind!(input.kind(), multiply(&layer, &input.rows(Rule::Dynamic, self.isa), &mut y));
        y
    }

    fn bytes(&self) -> u64 {
        let tensors = match &self.scaling {
            Scaling::Progressive { group_scale, group_zero, channel_scale } => {
                vec![group_scale, group_zero, channel_scale]
            }
            Scaling::Float(scale) => vec![scale],
        };
        bytes_of(tensors.into_iter().chain([&self.bytes]).chain(&self.bias))
    }
}

/// [`Scaling`] as slices.
#[derive(Clone, Copy)]
enum Scales<'a> {
    Progressive { group_scale: &'a [i8], group_zero: &'a [i8], channel_scale: &'a [f32] },
    Float(&'a [f32]),
}

/// A layer as threads see it.
#[derive(Clone, Copy)]
struct View<'a> {
    bytes: &'a [u8],
    in_features: usize,
    group: usize,
    scales: Scales<'a>,
    bias: Option<&'a [f32]>,
    isa: Isa,
}

impl View<'_> {
    fn groups(&self) -> usize {
        self.in_features / self.group
    }

    fn channel(&self, channel: usize) -> &[u8] {
        let width = self.in_features / 2;
        &self.bytes[channel * width..][..width]
    }

    /// To `found` the product of each row with a channel, but for what scales all its outputs alike.
    fn multiply_channel(&self, rows: &FewRows, channel: usize, found: &mut [f32]) {
        let groups = channel * self.groups()..(channel + 1) * self.groups();
        let bytes = self.channel(channel);
        match self.scales {
            Scales::Progressive { group_scale, group_zero, channel_scale: _ } => {
                let mut products = [0; FEW_ROWS];
                let (scales, zeros) = (&group_scale[groups.clone()], &group_zero[groups]);
                rows.multiply(IntegerChannel { bytes, scales, zeros }, &mut products[..found.len()]);
                found.iter_mut().zip(products).for_each(|(found, product)| *found = product as f32);
            }
            Scales::Float(scale) => {
                rows.multiply_float(
                    FloatChannel { bytes, scales: &scale[groups], zero: OFFSET as i8 },
                    found,
                );
            }
        }
    }
}

/// To `y` [..., N], without gaps.
fn multiply<T: Float>(layer: &View<'_>, rows: &Rows, y: &mut Tensor) {
    let out_features = 2 * layer.bytes.len() / layer.in_features;
    let sink = Output { layer, y: Columns::<T>::new(y), row_scales: &rows.scales };
    let count = rows.scales.len();
    let most = match layer.scales {
        Scales::Progressive { .. } if layer.group == CHUNK => FEW_ROWS_OF_CHUNKS,
        _ => FEW_ROWS,
    };
    if count <= most {
        return multiply_few(layer, rows, out_features, &sink);
    }
    match layer.scales {
        Scales::Progressive { .. } => {
            gemm::multiply(&rows.panel(layer.isa), count, layer, out_features, layer.isa, &sink);
        }
        Scales::Float(_) => {
            let isa = gemm::isa_for_groups(layer.group, layer.isa);
            gemm::multiply_groups(&rows.panel(isa), count, layer, (out_features, layer.group), isa, &sink);
        }
    }
}

fn multiply_few<T: Float>(layer: &View<'_>, rows: &Rows, out_features: usize, sink: &Output<'_, T>) {
    let few = FewRows::new(&rows.codes, (layer.in_features, layer.group), layer.isa);
    let count = rows.scales.len();
    in_parts(out_features, CHANNELS, ALONE / rows.codes.len().max(1), |channels| {
        for first in channels.clone().step_by(CHANNELS) {
            let some = first..(first + CHANNELS).min(channels.end);
            let mut found = [[0.0; FEW_ROWS]; CHANNELS];
            for (channel, found) in some.clone().zip(&mut found) {
                layer.multiply_channel(&few, channel, &mut found[..count]);
            }
            for row in 0..count {
                sink.put_all(row, first, found[..some.len()].iter().map(|found| found[row]));
            }
        }
    });
}

/// Codes as int8: progressive weights as they are, others less their offset.
impl Source for View<'_> {
    fn in_features(&self) -> usize {
        self.in_features
    }

    fn channels<'a>(&'a self, channels: Range<usize>, scratch: &'a mut Scratch) -> Weight<'a> {
        scratch.codes.resize(channels.len() * self.in_features, 0);
        for (channel, codes) in channels.zip(scratch.codes.chunks_exact_mut(self.in_features)) {
            let groups = self.channel(channel).chunks_exact(self.group / 2).zip(channel * self.groups()..);
            for (codes, (bytes, group)) in codes.chunks_exact_mut(self.group).zip(groups) {
                let (scale, zero) = match self.scales {
                    Scales::Progressive { group_scale, group_zero, .. } => {
                        (group_scale[group], group_zero[group])
                    }
                    Scales::Float(_) => (1, OFFSET as i8),
                };
                // Every code gives an int8: that was checked when the weight was made.
                let value = |code: u8| (code as i8 - zero).wrapping_mul(scale);
                let (codes, _) = codes.as_chunks_mut::<2>();
                for (codes, &byte) in codes.iter_mut().zip(bytes) {
                    *codes = pair(byte, Order::LowFirst).map(value);
                }
            }
        }
        Weight::new(&scratch.codes, self.in_features)
    }
}

/// Where scaled sums become outputs.
struct Output<'a, T> {
    layer: &'a View<'a>,
    y: Columns<T>,
    row_scales: &'a [f32],
}

impl<T: Float> Output<'_, T> {
    /// Of a row and the channels from `first` on.
    #[inline(always)]
    fn put_all(&self, row: usize, first: usize, sums: impl ExactSizeIterator<Item = f32>) {
        let (count, row_scale) = (sums.len(), self.row_scales[row]);
        // SAFETY: the output outlives the call, and each row and channel is given out once.
        let y = unsafe { self.y.part(row, first, count) };
        let by_row = sums.map(|sum| sum * row_scale);
        let bias = self.layer.bias.map(|bias| &bias[first..]);
        match self.layer.scales {
            Scales::Progressive { channel_scale, .. } => {
                let scales = &channel_scale[first..][..count];
                put(y, by_row.zip(scales).map(|(sum, scale)| sum * scale), bias);
            }
            Scales::Float(_) => put(y, by_row, bias),
        }
    }
}

impl<T: Float> Sink for Output<'_, T> {
    // Becomes vectors of the unit whose loop it is part of.
    #[inline(always)]
    fn take(&self, row: usize, first: usize, sums: &[i32]) {
        self.put_all(row, first, sums.iter().map(|&sum| sum as f32));
    }
}

impl<T: Float> GroupedSink for Output<'_, T> {
    fn scale(&self, channel: usize, group: usize) -> f32 {
        match self.layer.scales {
            Scales::Float(scale) => scale[channel * self.layer.groups() + group],
            Scales::Progressive { .. } => 1.0,
        }
    }

    // Becomes vectors of the unit whose loop it is part of.
    #[inline(always)]
    fn take(&self, row: usize, first: usize, sums: &[f32]) {
        self.put_all(row, first, sums.iter().copied());
    }
}
