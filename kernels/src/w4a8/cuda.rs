//! W4A8 on CUDA in two launches: rows become int8 codes, and are multiplied with weights that become int8 in registers. Where the device
//! multiplies int8 by wgmma, many rows take a third: weights with integer scales become an int8 matrix first, for as long as the product takes.

use tch::{Device, Kind, TchError, Tensor};

use crate::cpu::rows::Rule;
use crate::cuda::{self, Argument, Function, Grid, Source};
use crate::cuda_rows::{aligned, number_of};
use crate::input::Input;
use crate::int8::launches::CudaRows;
use crate::int8::{Entries, NORMALIZE, QUANTIZE, Quantizer, WIDE, fits_int32};
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::packing::OFFSET;
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// By scheme, then by type.
static FEW: Source = Source::new(
    "w4a8_gemv",
    include_str!("../../cuda/w4a8_gemv.cu"),
    &[
        "w4a8_gemv_progressive_f32",
        "w4a8_gemv_progressive_f16",
        "w4a8_gemv_progressive_bf16",
        "w4a8_gemv_grouped_f32",
        "w4a8_gemv_grouped_f16",
        "w4a8_gemv_grouped_bf16",
    ],
);

/// By type, then by size.
static MANY_PROGRESSIVE: Source = Source::new(
    "w4a8_progressive_gemm",
    include_str!("../../cuda/w4a8_progressive_gemm.cu"),
    &[
        "w4a8_progressive_gemm_f32_32",
        "w4a8_progressive_gemm_f32_128",
        "w4a8_progressive_gemm_f16_32",
        "w4a8_progressive_gemm_f16_128",
        "w4a8_progressive_gemm_bf16_32",
        "w4a8_progressive_gemm_bf16_128",
    ],
);

/// By type, then by size.
static MANY_GROUPED: Source = Source::new(
    "w4a8_grouped_gemm",
    include_str!("../../cuda/w4a8_grouped_gemm.cu"),
    &[
        "w4a8_grouped_gemm_f32_32",
        "w4a8_grouped_gemm_f32_64",
        "w4a8_grouped_gemm_f16_32",
        "w4a8_grouped_gemm_f16_64",
        "w4a8_grouped_gemm_bf16_32",
        "w4a8_grouped_gemm_bf16_64",
    ],
);

/// Progressive weights as int8.
static EXPAND: Source =
    Source::new("w4a8_expand", include_str!("../../cuda/w4a8_expand.cu"), &["w4a8_expand"]);

/// Input channels that must share a scale.
const CHUNK: i64 = 32;
/// Groups' rows have a multiple of so many channels, so that they begin where 16 bytes are loaded at once.
const CHANNELS_ALIGNMENT: i64 = 8;
/// Rows and output channels of a block of [`FEW`], and up to how many rows it serves.
const FEW_TILE: (i64, i64) = (8, 16);
const MOST_FEW_ROWS: i64 = 16;
/// Rows of the small blocks for many rows, and output channels of all.
const SMALL_ROWS: i64 = 32;
const MANY_CHANNELS: i64 = 128;
/// Threads of a block of any entry.
const THREADS: u32 = 256;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct CudaFused;

/// The integer scales and zeros of progressive groups, both i8 [N, G], as w4a8.cuh has them: i16 [G, P], the scale in the lower
/// byte, scale · (zero + 8) in the upper.
///
/// # Errors
///
/// Only libtorch's.
pub fn progressive_groups(scale: &Tensor, zero: &Tensor) -> Result<Tensor, TchError> {
    let scale = scale.f_to_kind(Kind::Int)?;
    let product = zero.f_to_kind(Kind::Int)?.f_add_scalar(OFFSET)?.f_mul(&scale)?;
    by_group(
        &product
            .f_bitwise_left_shift_tensor_scalar(8)?
            .f_bitwise_or_tensor(&scale)?
            .f_to_kind(Kind::Int16)?,
    )
}

/// Something of each channel and group, [N, G], in the order of w4a8.cuh: [G, P], where P is N filled up to a multiple of 8.
///
/// # Errors
///
/// Only libtorch's.
pub fn by_group(groups: &Tensor) -> Result<Tensor, TchError> {
    let missing = (-groups.size2()?.0).rem_euclid(CHANNELS_ALIGNMENT);
    groups.f_tr()?.f_constant_pad_nd([0, missing])?.f_contiguous()
}

impl Kernel for CudaFused {
    fn supports(&self, layer: &Layer) -> bool {
        layer.is_in_float_or_half()
            && fits_int32(layer)
            && layer.group().is_some_and(|group| group % CHUNK == 0)
            && cuda::works(layer.device, self.sources())
    }

    fn sources(&self) -> &'static [&'static Source] {
        static SOURCES: [&Source; 7] =
            [&QUANTIZE, &NORMALIZE, &FEW, &MANY_PROGRESSIVE, &MANY_GROUPED, &EXPAND, &WIDE];
        &SOURCES
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let to = |tensor: &Tensor| tensor.f_to_device(layer.device)?.f_contiguous();
        let (packed, groups, channel_scale, group) = match weight.codes() {
            Codes::Progressive { packed, group_scale, group_zero, channel_scale, group } => {
                let channel_scale = channel_scale.f_to_kind(Kind::Float)?.f_reshape([-1])?;
                (packed, progressive_groups(group_scale, group_zero)?, Some(to(&channel_scale)?), group)
            }
            Codes::Int4A8 { packed, scale, group } => {
                (packed, by_group(&scale.f_to_kind(layer.kind)?)?, None, group)
            }
            _ => unreachable!("the table has it for W4A8 only"),
        };
        let scheme = Layout { is_grouped: channel_scale.is_none() };
        let bias = weight.bias().map(|bias| bias.f_to_device_(layer.device, Kind::Float, false, false));
        let wide = if scheme.is_grouped { None } else { Expanded::of(layer.device)? };
        Ok(Box::new(PreparedCuda {
            wide,
            quantizer: Quantizer::new(Rule::Dynamic, layer.device, layer.kind)?,
            packed: aligned(&packed.f_to_device(layer.device)?)?,
            groups: to(&groups)?,
            channel_scale,
            bias: bias.transpose()?,
            group: *group,
            few: scheme.few(layer.device, layer.kind)?,
            many: [scheme.many(layer.device, layer.kind, 0)?, scheme.many(layer.device, layer.kind, 1)?],
            large_rows: scheme.rows(1),
            kind: layer.kind,
        }))
    }
}

/// Which of the two schemes, and so which entries.
#[derive(Clone, Copy, Debug)]
struct Layout {
    is_grouped: bool,
}

impl Layout {
    /// Rows of a block for many rows, of the small ones and the large.
    fn rows(self, size: usize) -> i64 {
        [[SMALL_ROWS, 128], [SMALL_ROWS, 64]][usize::from(self.is_grouped)][size]
    }

    /// Three stages of 128 input channels: of rows, of codes, of four groups.
    fn shared_bytes(self, size: usize, kind: Kind) -> u32 {
        let of_group = if self.is_grouped { kind.elt_size_in_bytes() as i64 } else { 2 };
        3 * (self.rows(size) * 128 + MANY_CHANNELS * (64 + 4 * of_group)) as u32
    }

    fn few(self, device: Device, kind: Kind) -> Result<Function, cuda::CudaError> {
        Function::of(&FEW, FEW.functions[3 * usize::from(self.is_grouped) + number_of(kind)], device, 0)
    }

    fn many(self, device: Device, kind: Kind, size: usize) -> Result<Function, cuda::CudaError> {
        let source = if self.is_grouped { &MANY_GROUPED } else { &MANY_PROGRESSIVE };
        let name = source.functions[2 * number_of(kind) + size];
        Function::of(source, name, device, self.shared_bytes(size, kind))
    }
}

/// For many rows of progressive weights, where the device multiplies int8 so fast that it is worth making int8 weights of them first, each
/// time.
#[derive(Debug)]
struct Expanded {
    expand: Function,
    entries: Entries,
}

impl Expanded {
    fn of(device: Device) -> Result<Option<Self>, KernelError> {
        let entries = Entries::of(device)?;
        let of =
            |entries| Ok(Self { expand: Function::of(&EXPAND, EXPAND.functions[0], device, 0)?, entries });
        entries.map(of).transpose()
    }
}

#[derive(Debug)]
struct PreparedCuda {
    wide: Option<Expanded>,
    quantizer: Quantizer,
    /// i32 [N, K/8].
    packed: Tensor,
    /// See [`progressive_groups`] and [`by_group`].
    groups: Tensor,
    /// f32 `[N]`; `None` where groups have all of the scale.
    channel_scale: Option<Tensor>,
    /// f32 `[N]`.
    bias: Option<Tensor>,
    group: i64,
    few: Function,
    many: [Function; 2],
    /// Rows of the large blocks.
    large_rows: i64,
    kind: Kind,
}

impl PreparedCuda {
    fn multiply(&self, input: &Input<'_>) -> Result<Tensor, KernelError> {
        let (out_features, in_features) = (self.packed.size()[0], 8 * self.packed.size()[1]);
        let shape = input.output_size((out_features, in_features));
        let codes = self.quantizer.of(input);
        let rows = codes.codes.size()[0];
        let y = Tensor::f_empty([rows, out_features], (self.kind, self.packed.device()))?;
        if let Some(wide) = self.wide.as_ref().filter(|_| rows > MOST_FEW_ROWS && y.numel() > 0) {
            self.multiply_expanded(wide, &codes, &y)?;
            return Ok(y.f_view(shape.as_slice())?);
        }
        let arguments = [
            Argument::Tensor(&y),
            Argument::Tensor(&codes.codes),
            Argument::Tensor(&self.packed),
            Argument::Tensor(&self.groups),
            Argument::Tensor(&codes.scales),
            Argument::from(self.channel_scale.as_ref()),
            Argument::from(self.bias.as_ref()),
            Argument::Int(rows as i32),
            Argument::Int(out_features as i32),
            Argument::Int(in_features as i32),
            Argument::Int(self.group as i32),
        ];
        let (function, grid) = self.launch(rows, out_features);
        // SAFETY: these are the parameters of both sources' entries, and the tensors have the shapes that they tell; codes
        // have no padding, K being a multiple of 32.
        unsafe { function.launch(grid, &arguments)? };
        Ok(y.f_view(shape.as_slice())?)
    }

    /// Fills `y` [M, N].
    fn multiply_expanded(&self, wide: &Expanded, rows: &CudaRows, y: &Tensor) -> Result<(), KernelError> {
        let (out_features, words) = self.packed.size2()?;
        let weight = Tensor::f_empty([out_features, 8 * words], (Kind::Int8, self.packed.device()))?;
        let [count, channels, width] =
            [rows.codes.size()[0], out_features, 8 * words].map(|size| Argument::Int(size as i32));
        let arguments = [
            Argument::Tensor(&weight),
            Argument::Tensor(&self.packed),
            Argument::Tensor(&self.groups),
            channels,
            width,
            Argument::Int(self.group as i32),
        ];
        let blocks = (out_features * words).cast_unsigned().div_ceil(u64::from(THREADS)) as u32;
        let grid = Grid { blocks: [blocks, 1, 1], threads: THREADS, shared_bytes: 0 };
        // SAFETY: these are w4a8_expand's parameters, and the tensors have the shapes that it tells.
        unsafe { wide.expand.launch(grid, &arguments)? };
        let others = [
            Argument::Tensor(y),
            Argument::Tensor(&rows.scales),
            Argument::from(self.channel_scale.as_ref()),
            Argument::from(self.bias.as_ref()),
            count,
            channels,
            width,
            // scaled.cuh counts types alike, and its first mode has this scheme's roundings.
            Argument::Int(number_of(self.kind) as i32),
            Argument::Int(0),
        ];
        // SAFETY: this is what int8_wgmma's entries have behind both operands.
        unsafe { wide.entries.multiply(rows, (&Entries::map(&weight)?, out_features), &others) }
    }

    fn launch(&self, rows: i64, out_features: i64) -> (Function, Grid) {
        let tiles = |count: i64, tile: i64| count.cast_unsigned().div_ceil(tile.cast_unsigned()) as u32;
        if rows <= MOST_FEW_ROWS {
            let blocks = [tiles(out_features, FEW_TILE.1), tiles(rows, FEW_TILE.0), 1];
            return (self.few, Grid { blocks, threads: THREADS, shared_bytes: 0 });
        }
        let size = usize::from(rows > SMALL_ROWS);
        let tile_rows = if size == 0 { SMALL_ROWS } else { self.large_rows };
        let layout = Layout { is_grouped: self.channel_scale.is_none() };
        let blocks = [tiles(rows, tile_rows), tiles(out_features, MANY_CHANNELS), 1];
        let shared_bytes = layout.shared_bytes(size, self.kind);
        (self.many[size], Grid { blocks, threads: THREADS, shared_bytes })
    }
}

impl PreparedLinear for PreparedCuda {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_input(&Input::new(x))
    }

    fn forward_input(&self, input: &Input<'_>) -> Tensor {
        self.multiply(input).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        bytes_of([&self.packed, &self.groups].into_iter().chain(&self.channel_scale).chain(&self.bias))
    }
}
