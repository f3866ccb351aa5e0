//! Layers with weights in few bits and activations in floating point, however these weights are stored.
//!
//! Few rows are multiplied straight from the packed bytes, [`Stored::rows_at_once`] of them together. For many, weights are rounded to the activations' type, as the
//! reference rounds them: with AVX2 and f32, or AVX-512 BF16 and f32 or bfloat16, each thread unpacks strips of output channels in its cache and
//! multiplies them there ([`float_strips`]); else a tile is unpacked, on all threads, and multiplied as a matrix by libtorch.

use std::fmt::Debug;
use std::ops::Range;

use half::{bf16, f16};
use tch::{Device, Kind, TchError, Tensor};

use super::few::MOST_ROWS;
use super::float::Float;
#[cfg(target_arch = "x86_64")]
use super::float_strips::{self, Biased, FloatBlocks, Room, Weights};
use super::isa::Isa;
use super::threads::{ALONE, VALUES_ALONE, in_parts};
use super::view::{Columns, elements};
#[cfg(target_arch = "x86_64")]
use super::{outer_float, outer_wide};
use crate::few_rows;
use crate::kernel::{PreparedLinear, bytes_of};
use crate::product::{has_bfloat16_products, product};

/// Weights in a tile, where that makes more than [`TILE_CHANNELS`]: it stays in the second-level cache while it is made and multiplied.
const TILE_WEIGHTS: usize = 1 << 17;
/// Output channels of a tile at least: for each tile libtorch brings all rows into an order of its own, which costs more than leaving the
/// cache.
const TILE_CHANNELS: usize = 128;

/// Bytes of rows that each strip of output channels meets at most, unless [`ROWS_TOGETHER`] have more: they stay in the third-level cache.
#[cfg(target_arch = "x86_64")]
const ROW_BYTES: usize = 8 << 20;
/// So many rows are not parted, as strips are unpacked again for each part.
#[cfg(target_arch = "x86_64")]
const ROWS_TOGETHER: usize = 384;

/// Output channels whose products one call makes.
const BLOCK: usize = 8;

/// Room for what belongs to some output channels.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// [C, K / group].
    pub(crate) scales: Vec<f32>,
    /// [C, K / group].
    pub(crate) zeros: Vec<u8>,
    /// `[K]`, of one.
    pub(crate) codes: Vec<u8>,
}

/// A matrix [N, K] in few bits.
pub(crate) trait Stored: Debug {
    /// Up to this many rows are multiplied from the packed bytes; where [`outer_wide`] multiplies more, up to as many as at once.
    const FEW_ROWS: usize;

    /// So many rows of a type share the unpacking of an output channel.
    fn rows_at_once(&self, kind: Kind, isa: Isa) -> usize;

    /// The matrix as threads read it.
    type View<'a>: Channels + Sync
    where
        Self: 'a;

    /// Its slices: asking a tensor for its own costs as much as an output channel does.
    fn view(&self) -> Self::View<'_>;

    /// Bytes of its tensors.
    fn bytes(&self) -> u64;
}

/// What can be done with the output channels of a matrix.
pub(crate) trait Channels {
    /// Activations of one row as [`Channels::products`] wants them.
    type Row: Sync;

    /// N and K.
    fn shape(&self) -> (usize, usize);

    /// The activations of a row, `[K]`.
    fn row<T: Float>(&self, values: &[T], isa: Isa) -> Self::Row;

    /// The products of at most [`Stored::rows_at_once`] rows with output channels, to `found`. `scratch` is for their scales.
    fn products(
        &self,
        rows: &[Self::Row],
        channels: Range<usize>,
        scratch: &mut Scratch,
        isa: Isa,
        found: &mut [[f32; MOST_ROWS]],
    );

    /// The weights of an output channel, `[K]`, rounded to the type `T` and held in the type `V`.
    fn unpack<T: Float, V: Float>(&self, channel: usize, scratch: &mut Scratch, weights: &mut [V], isa: Isa);
}

/// Such a matrix with a bias.
#[derive(Debug)]
pub(crate) struct WeightOnly<S> {
    stored: S,
    /// `[N]` in f32.
    bias: Option<Tensor>,
    isa: Isa,
    /// Outputs are rounded to 16 bits by who asked for them.
    is_rounded: bool,
}

impl<S: Stored> WeightOnly<S> {
    /// With a bias `[N]` in any floating-point type, rounded to `kind`.
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    pub(crate) fn new(stored: S, bias: Option<&Tensor>, kind: Kind) -> Result<Self, TchError> {
        let bias =
            bias.map(|bias| bias.f_to_kind(kind)?.f_to_kind(Kind::Float)?.f_contiguous()).transpose()?;
        Ok(Self { stored, bias, isa: Isa::here(), is_rounded: false })
    }

    /// For a layer whose outputs are rounded to 16 bits after it.
    pub(crate) fn rounded_after(self) -> Self {
        Self { is_rounded: true, ..self }
    }

    fn way(&self, rows: usize, kind: Kind) -> Way {
        // In float32 no weight is rounded anyway.
        let is_alike = few_rows::are_alike() && (kind != Kind::Float || self.is_rounded);
        let most = |few: usize| if is_alike { 0 } else { few };
        #[cfg(target_arch = "x86_64")]
        let at_once = self.stored.rows_at_once(kind, self.isa);
        #[cfg(target_arch = "x86_64")]
        match kind {
            // In 16 bits sums in another order than the reference's would be rounded to other numbers now and then: steps that tiles,
            // whose product is the reference's, do not make, and the unit for bfloat16 does not either.
            Kind::Float if self.isa == Isa::Avx2 && !self.is_rounded && rows > S::FEW_ROWS => {
                return Way::FloatStrips;
            }
            Kind::Float if outer_wide::is_best(self.isa) && !self.is_rounded && rows > at_once => {
                return Way::WideStrips;
            }
            Kind::BFloat16 if outer_wide::is_best(self.isa) && rows > most(at_once) => {
                return Way::WideStrips;
            }
            _ => {}
        }
        let _ = kind;
        if rows > most(S::FEW_ROWS) { Way::Tiles } else { Way::Packed }
    }

    /// `x` [M, K] without gaps, few rows, to `y` [M, N].
    fn multiply<T: Float>(&self, x: &Tensor, y: &mut Tensor) {
        let stored = self.stored.view();
        let (out_features, in_features) = stored.shape();
        let rows: Vec<_> =
            elements::<T>(x).chunks_exact(in_features).map(|row| stored.row(row, self.isa)).collect();
        let at_once = self.stored.rows_at_once(T::KIND, self.isa);
        let bias = self.bias.as_ref().map(elements::<f32>);
        let (y, isa) = (Columns::<T>::new(y), self.isa);
        in_parts(out_features, BLOCK, ALONE / (in_features * rows.len()).max(1), |channels| {
            let (mut scratch, mut found) = (Scratch::default(), [[0.0; MOST_ROWS]; BLOCK]);
            for first in channels.clone().step_by(BLOCK) {
                let block = first..channels.end.min(first + BLOCK);
                let found = &mut found[..block.len()];
                for (some, first_row) in rows.chunks(at_once).zip((0..).step_by(at_once)) {
                    stored.products(some, block.clone(), &mut scratch, isa, found);
                    for row in 0..some.len() {
                        // SAFETY: the output outlives the call, and each channel is one thread's.
                        let places = unsafe { y.part(first_row + row, first, block.len()) };
                        for ((place, products), channel) in places.iter_mut().zip(&*found).zip(block.clone())
                        {
                            *place = T::narrow(products[row] + bias.map_or(0.0, |bias| bias[channel]));
                        }
                    }
                }
            }
        });
    }

    /// `x` [M, K] without gaps, many rows in the type of the blocks' weights, to `y` [M, N], strips of output channels after the other.
    /// `blocks` brings some rows into the order of the unit.
    ///
    /// # Safety
    ///
    /// The processor has the unit.
    #[cfg(target_arch = "x86_64")]
    unsafe fn multiply_strips<B: FloatBlocks<Weight: Float>>(
        &self,
        x: &Tensor,
        y: &mut Tensor,
        blocks: impl Fn(&[B::Weight], usize) -> B,
    ) {
        let weights = Unpacking { stored: self.stored.view(), isa: self.isa };
        let (_, in_features) = weights.stored.shape();
        let rows = x.size()[0] as usize;
        let most = (ROW_BYTES / size_of::<B::Weight>() / in_features).max(ROWS_TOGETHER);
        let count = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        for (part, x) in elements::<B::Weight>(x).chunks(count * in_features).enumerate() {
            let mut y = y.narrow(0, (part * count) as i64, (x.len() / in_features) as i64);
            let sink =
                Biased { y: Columns::<B::Weight>::new(&mut y), bias: self.bias.as_ref().map(elements) };
            // SAFETY: the caller promises it.
            unsafe { float_strips::multiply(&blocks(x, in_features), &weights, &sink) };
        }
    }

    /// `x` [M, K] to [M, N], a tile after the other.
    fn multiply_tiles(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let kind = x.kind();
        if kind == Kind::BFloat16 && has_bfloat16_products() {
            return self.tiles::<bf16, bf16>(x, kind);
        }
        let wide = x.f_to_kind(Kind::Float)?;
        match kind {
            Kind::BFloat16 => self.tiles::<bf16, f32>(&wide, kind),
            Kind::Half => self.tiles::<f16, f32>(&wide, kind),
            _ => self.tiles::<f32, f32>(&wide, kind),
        }
    }

    fn tiles<T: Float, V: Float>(&self, x: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
        let stored = self.stored.view();
        let (out_features, in_features) = stored.shape();
        let y = Tensor::f_empty([x.size()[0], out_features as i64], (kind, Device::Cpu))?;
        let step = (TILE_WEIGHTS / in_features).max(TILE_CHANNELS).min(out_features);
        let mut tile = Tensor::f_empty([step as i64, in_features as i64], (V::KIND, Device::Cpu))?;
        for start in (0..out_features).step_by(step) {
            let count = step.min(out_features - start);
            let (columns, isa) = (Columns::<V>::new(&mut tile), self.isa);
            in_parts(count, 1, VALUES_ALONE / in_features, |channels| {
                let mut scratch = Scratch::default();
                for channel in channels {
                    // SAFETY: the tile outlives the call, and each channel is one thread's.
                    let weights = unsafe { columns.part(channel, 0, in_features) };
                    stored.unpack::<T, V>(start + channel, &mut scratch, weights, isa);
                }
            });
            let (start, count) = (start as i64, count as i64);
            let mut part = product(x, &tile.f_narrow(0, 0, count)?.f_tr()?)?;
            if let Some(bias) = &self.bias {
                let _ = part.f_add_(&bias.f_narrow(0, start, count)?)?;
            }
            y.f_narrow(1, start, count)?.f_copy_(&part)?;
        }
        Ok(y)
    }
}

/// A matrix whose output channels are unpacked when they are wanted.
#[cfg(target_arch = "x86_64")]
struct Unpacking<C> {
    stored: C,
    isa: Isa,
}

#[cfg(target_arch = "x86_64")]
impl<C: Channels + Sync, T: Float + Default> Weights<T> for Unpacking<C> {
    fn shape(&self) -> (usize, usize) {
        self.stored.shape()
    }

    fn channels<'a>(&'a self, range: Range<usize>, room: &'a mut Room<T>) -> &'a [T] {
        let (out_features, in_features) = self.stored.shape();
        let Room { weights, scratch } = room;
        weights.resize(range.len() * in_features, T::default());
        for (channel, weights) in range.zip(weights.chunks_exact_mut(in_features)) {
            match channel < out_features {
                true => self.stored.unpack::<T, T>(channel, scratch, weights, self.isa),
                false => weights.fill(T::default()),
            }
        }
        weights
    }
}

/// How rows are multiplied.
enum Way {
    /// Straight from the packed bytes.
    Packed,
    /// By AVX2, in f32.
    #[cfg(target_arch = "x86_64")]
    FloatStrips,
    /// By AVX-512, in their own type.
    #[cfg(target_arch = "x86_64")]
    WideStrips,
    /// By libtorch.
    Tiles,
}

impl<S: Stored> PreparedLinear for WeightOnly<S> {
    fn forward(&self, x: &Tensor) -> Tensor {
        let (out_features, in_features) = self.stored.view().shape();
        let mut shape = x.size();
        *shape.last_mut().expect("activations have a last dimension") = out_features as i64;
        let x = x.reshape([-1, in_features as i64]).contiguous();
        let rows = x.size()[0];
        let way = self.way(rows as usize, x.kind());
        if let Way::Tiles = way {
            return self
                .multiply_tiles(&x)
                .expect("its shape was checked when the layer was prepared")
                .view(shape.as_slice());
        }
        let mut y = Tensor::empty([rows, out_features as i64], (x.kind(), Device::Cpu));
        match way {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this way is taken where the processor has AVX2.
            Way::FloatStrips => unsafe { self.multiply_strips(&x, &mut y, outer_float::Rows::new) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this way is taken where the processor has the unit.
            Way::WideStrips => unsafe {
                match x.kind() {
                    Kind::BFloat16 => {
                        self.multiply_strips(&x, &mut y, |x, k| outer_wide::Rows::<bf16>::new(x, k))
                    }
                    _ => self.multiply_strips(&x, &mut y, |x, k| outer_wide::Rows::<f32>::new(x, k)),
                }
            },
            _ => match x.kind() {
                Kind::BFloat16 => self.multiply::<bf16>(&x, &mut y),
                Kind::Half => self.multiply::<f16>(&x, &mut y),
                _ => self.multiply::<f32>(&x, &mut y),
            },
        }
        y.view(shape.as_slice())
    }

    fn bytes(&self) -> u64 {
        self.stored.bytes() + bytes_of(&self.bias)
    }
}
