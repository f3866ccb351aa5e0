//! W4A16 on CUDA by kernels of our own: straight from the packed codes for few rows, and for many where the device has the instructions
//! ([`crate::wide4`]); else unpacked for a library's product where that is faster.
//!
//! Scales are in the activations' type, so that nothing is lost in half precision; tinygemm rounds them to bfloat16.

use tch::{Device, Kind, TchError, Tensor};

use super::tiles::Zeros;
use crate::cuda::{self, Argument, CudaError, Function, Grid, Source};
use crate::cuda_rows::{aligned, multiply_tiles, number_of};
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::weight::{Codes, KernelError, QuantizedWeight};
use crate::wide4::{Format, WIDE, Wide};

static FEW: Source = Source::new(
    "w4_gemv",
    include_str!("../../cuda/w4_gemv.cu"),
    &["w4_gemv_f32", "w4_gemv_f16", "w4_gemv_bf16", "w4_gemv_f16_4", "w4_gemv_bf16_4"],
);

static MANY: Source =
    Source::new("w4_gemm", include_str!("../../cuda/w4_gemm.cu"), &["w4_gemm_f16", "w4_gemm_bf16"]);

static UNPACK: Source = Source::new(
    "w4_dequantize",
    include_str!("../../cuda/w4_dequantize.cu"),
    &["w4_dequantize_f32", "w4_dequantize_f16", "w4_dequantize_bf16"],
);

/// Input channels that a lane loads at once, which must share a scale.
const CHUNK: i64 = 32;
/// Rows of a block of [`FEW`], and up to how many rows it serves.
const FEW_ROWS: i64 = 8;
const MOST_FEW_ROWS: i64 = 16;
/// Output channels of a block of [`FEW`]: with tensor cores, and in f32.
const FEW_CHANNELS: [i64; 2] = [16, 8];
/// The most rows and input channels, and a block's output channels, of [`FEW`]'s entries for fewer rows, which 16 bits have.
const FEWER_ROWS: i64 = 4;
const MOST_FEWER_INPUTS: i64 = 1 << 20;
const FEWER_CHANNELS: i64 = 8;
/// Threads of a block of any entry.
const THREADS: u32 = 256;
/// Rows and output channels of a block of [`MANY`], and the dynamic shared memory of its three stages.
const MANY_ROWS: i64 = 32;
const MANY_CHANNELS: i64 = 128;
const MANY_SHARED: u32 = 3 * (32 + 32) * 128;
/// More rows are worth unpacking the weight for, once, to multiply at the library's full speed: on an H100 kept from its own instructions 64
/// rows took [`MANY`] twice as long as that. Not measured on a card that has no others.
const MOST_MANY_ROWS: i64 = MANY_ROWS;
/// Weights unpacked at once: in 16 bits 64 MiB.
const TILE_WEIGHTS: i64 = 1 << 25;

/// Packed words, i32 [N, K/8] with codes in order, in the order of int4.cuh: codes 0, 2, 4, 6, 1, 3, 5, 7.
///
/// # Errors
///
/// Only libtorch's.
pub fn interleaved(packed: &Tensor) -> Result<Tensor, TchError> {
    let mut words = packed.f_zeros_like()?;
    for (place, code) in [0, 2, 4, 6, 1, 3, 5, 7].into_iter().enumerate() {
        let nibble = packed.f_bitwise_right_shift_tensor_scalar(4 * code)?.f_bitwise_and(15)?;
        words = words.f_bitwise_or_tensor(&nibble.f_bitwise_left_shift_tensor_scalar(4 * place as i64)?)?;
    }
    Ok(words)
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct CudaFused;

impl Kernel for CudaFused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half()
            && layer.group().is_some_and(|group| group % CHUNK == 0)
            && cuda::works(layer.device, self.sources())
    }

    fn sources(&self) -> &'static [&'static Source] {
        static SOURCES: [&Source; 4] = [&FEW, &MANY, &UNPACK, &WIDE];
        &SOURCES
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let (packed, scale, zero, group) = match weight.codes() {
            Codes::Int4 { packed, scale, group } => (packed, scale, None, group),
            Codes::Int4Asym { packed, scale, zero, group } => (packed, scale, Some(zero), group),
            _ => unreachable!("the table has it for W4A16 only"),
        };
        let to =
            |tensor: &Tensor, kind| tensor.f_to_device_(layer.device, kind, false, false)?.f_contiguous();
        let packed = interleaved(&packed.f_to_device(layer.device)?.f_contiguous()?)?;
        Ok(Box::new(PreparedCuda {
            wide: Wide::new(&packed.f_view_dtype(Kind::Uint8)?, Format::Integer, layer.kind, layer.device)?,
            packed,
            scale: to(scale, layer.kind)?,
            zero: zero.map(|zero| Zeros::pack(zero, layer.device)).transpose()?,
            bias: weight.bias().map(|bias| to(bias, Kind::Float)).transpose()?,
            group: *group,
            entries: Entries::of(layer.device, layer.kind)?,
        }))
    }
}

/// The functions for a type.
#[derive(Debug)]
struct Entries {
    few: Function,
    /// For [`FEWER_ROWS`]; f32 has none.
    fewer: Option<Function>,
    /// f32 has none.
    many: Option<Function>,
    unpack: Function,
}

impl Entries {
    fn of(device: Device, kind: Kind) -> Result<Self, CudaError> {
        let number = number_of(kind);
        let entry = |source: &'static Source| Function::of(source, source.functions[number], device, 0);
        let fewer = || Function::of(&FEW, FEW.functions[2 + number], device, 0);
        let many = || Function::of(&MANY, MANY.functions[number - 1], device, MANY_SHARED);
        Ok(Self {
            few: entry(&FEW)?,
            fewer: if kind == Kind::Float { None } else { Some(fewer()?) },
            many: if kind == Kind::Float { None } else { Some(many()?) },
            unpack: entry(&UNPACK)?,
        })
    }
}

#[derive(Debug)]
struct PreparedCuda {
    /// i32 [N, K/8], see [`interleaved`].
    packed: Tensor,
    /// [N, K/g] in the activations' type.
    scale: Tensor,
    zero: Option<Zeros>,
    /// f32 `[N]`.
    bias: Option<Tensor>,
    group: i64,
    entries: Entries,
    /// For more rows than [`MOST_FEW_ROWS`], where the device has it.
    wide: Option<Wide>,
}

impl PreparedCuda {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let in_features = 8 * self.packed.size()[1];
        let mut shape = x.size();
        *shape.last_mut().expect("activations have a last dimension") = self.packed.size()[0];
        let x = aligned(&x.f_reshape([-1, in_features])?)?;
        let rows = x.size()[0];
        let y = match &self.entries.many {
            _ if rows <= MOST_FEW_ROWS => {
                let fewer = rows <= FEWER_ROWS && in_features <= MOST_FEWER_INPUTS;
                let (function, tile, channels) = match self.entries.fewer.filter(|_| fewer) {
                    Some(function) => (function, FEWER_ROWS, FEWER_CHANNELS),
                    None => (self.entries.few, FEW_ROWS, FEW_CHANNELS[usize::from(x.kind() == Kind::Float)]),
                };
                self.multiply_packed(&x, function, tile, channels, 0, true)?
            }
            _ if let Some(wide) = &self.wide => {
                let numbers =
                    [Argument::Tensor(&self.scale), self.zeros(), Argument::from(self.bias.as_ref())];
                // SAFETY: these are w4_wgmma's parameters, and the tensors have the shapes that they tell.
                unsafe { wide.multiply(&x, self.packed.size()[0], &numbers, self.group)? }
            }
            Some(many) if rows <= MOST_MANY_ROWS => {
                self.multiply_packed(&x, *many, MANY_ROWS, MANY_CHANNELS, MANY_SHARED, false)?
            }
            _ => self.multiply_unpacked(&x)?,
        };
        Ok(y.f_view(shape.as_slice())?)
    }

    fn zeros(&self) -> Argument<'_> {
        Argument::from(self.zero.as_ref().map(Zeros::bytes))
    }

    /// A block for each `tile_rows` x `tile_channels` outputs; the channels come first where `few`.
    fn multiply_packed(
        &self,
        x: &Tensor,
        function: Function,
        tile_rows: i64,
        tile_channels: i64,
        shared_bytes: u32,
        few: bool,
    ) -> Result<Tensor, KernelError> {
        let ((rows, in_features), out_features) = (x.size2()?, self.packed.size()[0]);
        let y = Tensor::f_empty([rows, out_features], (x.kind(), x.device()))?;
        let across = (rows as u64).div_ceil(tile_rows as u64) as u32;
        let along = (out_features as u64).div_ceil(tile_channels as u64) as u32;
        let blocks = if few { [along, across, 1] } else { [across, along, 1] };
        let arguments = [
            Argument::Tensor(&y),
            Argument::Tensor(x),
            Argument::Tensor(&self.packed),
            Argument::Tensor(&self.scale),
            self.zeros(),
            Argument::from(self.bias.as_ref()),
            Argument::Int(rows as i32),
            Argument::Int(out_features as i32),
            Argument::Int(in_features as i32),
            Argument::Int(self.group as i32),
        ];
        // SAFETY: these are the parameters of w4_gemv's and w4_gemm's entries, and the tensors have the shapes that they tell.
        unsafe { function.launch(Grid { blocks, threads: THREADS, shared_bytes }, &arguments)? };
        Ok(y)
    }

    /// Some output channels after the other as a matrix in `x`'s type.
    fn multiply_unpacked(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let (in_features, out_features) = (x.size2()?.1, self.packed.size()[0]);
        multiply_tiles(x, (out_features, in_features), self.bias.as_ref(), TILE_WEIGHTS, |tile, first| {
            let count = tile.size2()?.0;
            let arguments = [
                Argument::Tensor(tile),
                Argument::Tensor(&self.packed),
                Argument::Tensor(&self.scale),
                self.zeros(),
                Argument::Int(first as i32),
                Argument::Int(count as i32),
                Argument::Int(in_features as i32),
                Argument::Int(self.group as i32),
            ];
            let blocks = (count * in_features / 8).cast_unsigned().div_ceil(u64::from(THREADS)) as u32;
            let grid = Grid { blocks: [blocks, 1, 1], threads: THREADS, shared_bytes: 0 };
            // SAFETY: these are w4_dequantize's parameters, and the tile has `count` output channels.
            unsafe { self.entries.unpack.launch(grid, &arguments)? };
            Ok(())
        })
    }
}

impl PreparedLinear for PreparedCuda {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        let zero = self.zero.iter().map(Zeros::bytes);
        bytes_of([&self.packed, &self.scale].into_iter().chain(zero).chain(&self.bias))
    }
}
