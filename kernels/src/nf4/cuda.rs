//! NF4 on CUDA by kernels of our own: straight from the packed codes for few rows, and for many where the device has the instructions
//! ([`crate::wide4`]); else dequantized for a library's product.

use tch::{Kind, Tensor};

use super::Absmax;
use crate::cuda::{self, Argument, Function, Grid, Source};
use crate::cuda_rows::{aligned, multiply_tiles, number_of};
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};
use crate::wide4::{Format, WIDE, Wide};

static FEW: Source = Source::new(
    "nf4_gemv",
    include_str!("../../cuda/nf4_gemv.cu"),
    &["nf4_gemv_f32", "nf4_gemv_f16", "nf4_gemv_bf16"],
);

static DEQUANTIZE: Source = Source::new(
    "nf4_dequantize",
    include_str!("../../cuda/nf4_dequantize.cu"),
    &["nf4_dequantize_f32", "nf4_dequantize_f16", "nf4_dequantize_bf16"],
);

/// Input channels that a lane of [`FEW`] loads at once, which must share a scale.
const CHUNK: i64 = 32;
/// Rows of a block of [`FEW`], and up to how many rows it serves.
const FEW_ROWS: u64 = 8;
const MOST_FEW_ROWS: i64 = 16;
/// Output channels of a block of [`FEW`]: with tensor cores, and in f32.
const FEW_CHANNELS: [u64; 2] = [16, 8];
/// Threads of a block, and weights of a thread of [`DEQUANTIZE`].
const THREADS: u32 = 256;
const OWN_WEIGHTS: u64 = 8;
/// Weights dequantized at once: in 16 bits 64 MiB.
const TILE_WEIGHTS: i64 = 1 << 25;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct CudaFused;

impl Kernel for CudaFused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half()
            && layer.group().is_some_and(|block| block % CHUNK == 0)
            && layer.in_features % CHUNK == 0
            && cuda::works(layer.device, self.sources())
    }

    fn sources(&self) -> &'static [&'static Source] {
        static SOURCES: [&Source; 3] = [&FEW, &DEQUANTIZE, &WIDE];
        &SOURCES
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::Nf4 { packed, absmax, block, compute } = weight.codes() else {
            unreachable!("the table has it for NF4 only");
        };
        // The type to compute in is the weight's own; another one than these is computed in f32.
        let compute = if *compute == Kind::Double { Kind::Float } else { *compute };
        let entry = |source: &'static Source| {
            Function::of(source, source.functions[number_of(compute)], layer.device, 0)
        };
        let bias = weight.bias().map(|bias| bias.f_to_device_(layer.device, Kind::Float, false, false));
        let packed = aligned(&packed.f_to_device(layer.device)?)?;
        let codes = packed.f_view([weight.out_features(), weight.in_features() / 2])?;
        Ok(Box::new(PreparedCuda {
            wide: Wide::new(&codes, Format::Nf4, compute, layer.device)?,
            packed,
            absmax: absmax.to_device(layer.device)?,
            block: *block,
            compute,
            out_features: weight.out_features(),
            in_features: weight.in_features(),
            bias: bias.transpose()?,
            few: entry(&FEW)?,
            dequantize: entry(&DEQUANTIZE)?,
        }))
    }
}

#[derive(Debug)]
struct PreparedCuda {
    /// u8 [⌈N·K/2⌉].
    packed: Tensor,
    absmax: Absmax,
    block: i64,
    /// The type in which activations are multiplied.
    compute: Kind,
    out_features: i64,
    in_features: i64,
    /// f32 `[N]`.
    bias: Option<Tensor>,
    few: Function,
    dequantize: Function,
    /// For more rows than [`MOST_FEW_ROWS`], where the device has it.
    wide: Option<Wide>,
}

impl PreparedCuda {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let mut shape = x.size();
        *shape.last_mut().expect("activations have a last dimension") = self.out_features;
        let rows = aligned(&x.f_reshape([-1, self.in_features])?.f_to_kind(self.compute)?)?;
        let y = match &self.wide {
            _ if rows.size()[0] <= MOST_FEW_ROWS => self.multiply_packed(&rows)?,
            Some(wide) => {
                let numbers = [&self.absmax()[..], &[Argument::from(self.bias.as_ref())]].concat();
                // SAFETY: these are nf4_wgmma's parameters, and the tensors have the shapes that they tell.
                unsafe { wide.multiply(&rows, self.out_features, &numbers, self.block)? }
            }
            None => self.multiply_dequantized(&rows)?,
        };
        Ok(y.f_to_kind(x.kind())?.f_view(shape.as_slice())?)
    }

    /// The parameters of a struct Nf4Absmax.
    fn absmax(&self) -> [Argument<'_>; 5] {
        match &self.absmax {
            Absmax::Plain(values) => [
                Argument::Tensor(values),
                Argument::Missing,
                Argument::Missing,
                Argument::Missing,
                Argument::Float(0.0),
            ],
            Absmax::Nested { code, map, scale, offset } => [
                Argument::Missing,
                Argument::Tensor(code),
                Argument::Tensor(map),
                Argument::Tensor(scale),
                Argument::Float(*offset),
            ],
        }
    }

    fn multiply_packed(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let rows = x.size()[0];
        let y = Tensor::f_empty([rows, self.out_features], (self.compute, x.device()))?;
        let channels = FEW_CHANNELS[usize::from(self.compute == Kind::Float)];
        let along = self.out_features.cast_unsigned().div_ceil(channels) as u32;
        let blocks = [along, rows.cast_unsigned().div_ceil(FEW_ROWS) as u32, 1];
        let mut arguments = vec![Argument::Tensor(&y), Argument::Tensor(x), Argument::Tensor(&self.packed)];
        arguments.extend(self.absmax());
        arguments.extend([
            Argument::from(self.bias.as_ref()),
            Argument::Int(rows as i32),
            Argument::Int(self.out_features as i32),
            Argument::Int(self.in_features as i32),
            Argument::Int(self.block as i32),
        ]);
        // SAFETY: these are the parameters of nf4_gemv's entries, and the tensors have the shapes that they tell.
        unsafe { self.few.launch(Grid { blocks, threads: THREADS, shared_bytes: 0 }, &arguments)? };
        Ok(y)
    }

    /// Some output channels after the other as a matrix in the type to compute in.
    fn multiply_dequantized(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let shape = (self.out_features, self.in_features);
        multiply_tiles(x, shape, self.bias.as_ref(), TILE_WEIGHTS, |tile, first| self.dequantize(tile, first))
    }

    /// Fills `tile` [count, K] with the output channels from `first` on.
    fn dequantize(&self, tile: &Tensor, first: i64) -> Result<(), KernelError> {
        let weights = tile.numel() as u64;
        let mut arguments = vec![Argument::Tensor(tile), Argument::Tensor(&self.packed)];
        arguments.extend(self.absmax());
        arguments.extend([
            Argument::Int(self.block as i32),
            Argument::Long(first * self.in_features),
            Argument::Long(first * self.in_features + tile.numel() as i64),
        ]);
        let blocks = weights.div_ceil(OWN_WEIGHTS).div_ceil(u64::from(THREADS)) as u32;
        let grid = Grid { blocks: [blocks, 1, 1], threads: THREADS, shared_bytes: 0 };
        // SAFETY: these are nf4_dequantize's parameters; the tile has so many weights, and K is a multiple of 8.
        unsafe { self.dequantize.launch(grid, &arguments)? };
        Ok(())
    }
}

impl PreparedLinear for PreparedCuda {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.packed].into_iter().chain(&self.bias)) + self.absmax.bytes()
    }
}
