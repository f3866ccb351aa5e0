//! The two launches of a layer with int8 weights and activations on CUDA: rows become codes, codes are multiplied.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::cpu::rows::Rule;
use crate::cuda::{Argument, CudaError, Function, Grid, Source, TensorMap};
use crate::cuda_rows::{aligned, number_of};
use crate::input::Input;
use crate::weight::KernelError;

use super::wide::Entries;

/// Rows to codes.
pub(crate) static QUANTIZE: Source = Source::new(
    "quantize_rows",
    include_str!("../../cuda/quantize_rows.cu"),
    &["quantize_rows_f32", "quantize_rows_f16", "quantize_rows_bf16"],
);

/// Rows, normalized, to codes.
pub(crate) static NORMALIZE: Source = Source::new(
    "rmsnorm_quantize",
    include_str!("../../cuda/rmsnorm_quantize.cu"),
    &["rmsnorm_quantize_f32", "rmsnorm_quantize_f16", "rmsnorm_quantize_bf16"],
);

/// A few rows of codes times a weight.
pub(crate) static FEW: Source = Source::new(
    "int8_gemv",
    include_str!("../../cuda/int8_gemv.cu"),
    &["int8_gemv_1", "int8_gemv_2", "int8_gemv_4", "int8_gemv_8"],
);

/// Many rows of codes times a weight, where there is no [`super::wide`].
pub(crate) static MANY: Source = Source::new(
    "int8_gemm",
    include_str!("../../cuda/int8_gemm.cu"),
    &["int8_gemm_16", "int8_gemm_32", "int8_gemm_64", "int8_gemm_128"],
);

/// K is filled up with zeros to a multiple of this, so that rows begin where 16 bytes are loaded at once.
pub(crate) const ALIGNMENT: i64 = 16;

/// Rows that the entries of [`FEW`] take.
const FEW_ROWS: [i64; 4] = [1, 2, 4, 8];
/// Up to so many rows [`FEW`] is faster than [`super::wide`].
const MOST_FEW: i64 = 4;
/// Output channels of a block of [`FEW`].
const FEW_CHANNELS: i64 = 8;
/// Threads of a block of [`FEW`].
const FEW_THREADS: u32 = 128;
/// Blocks that keep a large card busy; fewer are not worth the largest tile.
const MANY_BLOCKS: i64 = 128;

/// A tile of outputs that a block of [`MANY`] makes: one of its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    rows: i64,
    channels: i64,
    threads: u32,
    shared_bytes: u32,
}

/// In the order of the entries.
const TILES: [Tile; 4] = [
    Tile { rows: 16, channels: 32, threads: 64, shared_bytes: 36 << 10 },
    Tile { rows: 32, channels: 64, threads: 128, shared_bytes: 72 << 10 },
    Tile { rows: 64, channels: 64, threads: 128, shared_bytes: 32 << 10 },
    Tile { rows: 128, channels: 128, threads: 128, shared_bytes: 64 << 10 },
];

impl Tile {
    /// Tiles of `rows` x `channels` outputs.
    fn blocks(&self, rows: i64, channels: i64) -> i64 {
        (rows as u64).div_ceil(self.rows as u64) as i64
            * (channels as u64).div_ceil(self.channels as u64) as i64
    }

    /// The number of the tile for so many outputs.
    fn number(rows: i64, channels: i64) -> usize {
        match rows {
            ..=16 => 0,
            17..=32 => 1,
            _ if TILES[3].blocks(rows, channels) < MANY_BLOCKS => 2,
            _ => 3,
        }
    }
}

/// Rows as codes.
#[derive(Debug)]
pub(crate) struct CudaRows {
    /// i8 [M, K], K a multiple of [`ALIGNMENT`].
    pub(crate) codes: Tensor,
    /// f32 `[M]`.
    pub(crate) scales: Tensor,
}

impl CudaRows {
    /// Without contents, for `x` [M, K].
    pub(crate) fn empty(x: &Tensor) -> Result<Self, KernelError> {
        let (rows, width) = x.size2()?;
        let padded = width + (-width).rem_euclid(ALIGNMENT);
        Ok(Self {
            codes: Tensor::f_empty([rows, padded], (Kind::Int8, x.device()))?,
            scales: Tensor::f_empty([rows], (Kind::Float, x.device()))?,
        })
    }

    /// A block for each row, of a thread for 8 values, up to 512.
    pub(crate) fn grid(&self) -> Grid {
        let (rows, padded) = (self.codes.size()[0], self.codes.size()[1]);
        let threads = (padded as u32).div_ceil(8).next_multiple_of(32).clamp(32, 512);
        Grid { blocks: [rows as u32, 1, 1], threads, shared_bytes: 0 }
    }
}

/// Makes codes of rows.
#[derive(Debug)]
pub(crate) struct Quantizer {
    quantize: Function,
    normalize: Function,
    rule: Rule,
}

impl Quantizer {
    /// For activations of type `kind`.
    pub(crate) fn new(rule: Rule, device: Device, kind: Kind) -> Result<Self, CudaError> {
        let entry =
            |source: &'static Source| Function::of(source, source.functions[number_of(kind)], device, 0);
        Ok(Self { quantize: entry(&QUANTIZE)?, normalize: entry(&NORMALIZE)?, rule })
    }

    /// The rule's number in quantize.cuh, and its scale.
    fn rule(&self) -> [Argument<'static>; 2] {
        let (number, scale) = match self.rule {
            Rule::Dynamic => (0, 0.0),
            Rule::Static(scale) => (1, scale),
            Rule::Torchao => (2, 0.0),
        };
        [Argument::Int(number), Argument::Float(scale)]
    }

    /// The codes of what layers share, [..., K], as [M, K]: made by the first that asks, where it is normalized if that is still to be
    /// done.
    pub(crate) fn of(&self, input: &Input<'_>) -> Rc<CudaRows> {
        let flat = |x: &Tensor| x.f_reshape([-1, x.size().last().copied().unwrap_or(1)])?.f_contiguous();
        let make = || match input.unnormalized() {
            Some((x, norm)) => {
                let weight = norm.weight.f_to_kind(x.kind())?.f_contiguous()?;
                self.normalized_rows(&flat(x)?, &weight, norm.epsilon)
            }
            None => self.rows(&flat(input.tensor())?),
        };
        input.cuda_rows(self.rule, || make().expect("rows are quantized where their layer was prepared"))
    }

    /// The codes of `x` [M, K], contiguous.
    fn rows(&self, x: &Tensor) -> Result<CudaRows, KernelError> {
        let rows = CudaRows::empty(x)?;
        let [rule, scale] = self.rule();
        let arguments = [
            Argument::Tensor(x),
            Argument::Tensor(&rows.codes),
            Argument::Tensor(&rows.scales),
            Argument::Int(x.size()[1] as i32),
            Argument::Int(rows.codes.size()[1] as i32),
            rule,
            scale,
        ];
        // SAFETY: these are quantize_rows' parameters, and the tensors have the shapes that it tells.
        unsafe { self.quantize.launch(rows.grid(), &arguments)? };
        Ok(rows)
    }

    /// The codes of weight · x / √(mean(x²) + epsilon) for `x` [M, K] and `weight` `[K]`, contiguous and of one type.
    fn normalized_rows(&self, x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<CudaRows, KernelError> {
        let rows = CudaRows::empty(x)?;
        let [rule, scale] = self.rule();
        let arguments = [
            Argument::Tensor(x),
            Argument::Tensor(weight),
            Argument::Tensor(&rows.codes),
            Argument::Tensor(&rows.scales),
            Argument::Int(x.size()[1] as i32),
            Argument::Int(rows.codes.size()[1] as i32),
            Argument::Float(epsilon as f32),
            rule,
            scale,
        ];
        // SAFETY: these are rmsnorm_quantize's parameters, and the tensors have the shapes that it tells.
        unsafe { self.normalize.launch(rows.grid(), &arguments)? };
        Ok(rows)
    }
}

/// What sums become, in scaled.cuh.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scaling {
    /// sum · row · channel.
    Plain,
    /// The same, rounded to the activations' type in between.
    Rounded,
    /// row · channel · sum · [`crate::llm_int8::SUM_SCALE`].
    Magnitudes,
}

/// An int8 weight on CUDA.
#[derive(Debug)]
pub(crate) struct CudaWeight {
    /// i8 [N, K], K filled up to a multiple of [`ALIGNMENT`].
    pub(crate) codes: Tensor,
    /// f32 `[N]`.
    pub(crate) scale: Tensor,
    /// f32 `[N]`.
    pub(crate) bias: Option<Tensor>,
    few: [Function; 4],
    many: [Function; 4],
    /// For more rows than [`MOST_FEW`], where the device has them, with the codes.
    wide: Option<(Entries, TensorMap)>,
    kind: Kind,
}

impl CudaWeight {
    /// From codes, i8 [N, K], and f32 `[N]` scales and biases on any device, for activations of type `kind` on `device`.
    pub(crate) fn new(
        codes: &Tensor,
        scale: &Tensor,
        bias: Option<&Tensor>,
        device: Device,
        kind: Kind,
    ) -> Result<Self, KernelError> {
        let padding = (-codes.size2()?.1).rem_euclid(ALIGNMENT);
        let codes = codes.f_to_device(device)?;
        let codes = if padding > 0 { codes.f_constant_pad_nd([0, padding])? } else { codes };
        let vector = |tensor: &Tensor| {
            tensor.f_to_device_(device, Kind::Float, false, false)?.f_reshape([-1])?.f_contiguous()
        };
        let entry = |source: &'static Source, number: usize, shared| {
            Function::of(source, source.functions[number], device, shared)
        };
        let few = |number| entry(&FEW, number, 0);
        let many = |number: usize| entry(&MANY, number, TILES[number].shared_bytes);
        let codes = aligned(&codes)?;
        let entries = if codes.numel() > 0 { Entries::of(device)? } else { None };
        Ok(Self {
            wide: entries
                .map(|entries| Ok::<_, KernelError>((entries, Entries::map(&codes)?)))
                .transpose()?,
            codes,
            scale: vector(scale)?,
            bias: bias.map(vector).transpose()?,
            few: [few(0)?, few(1)?, few(2)?, few(3)?],
            many: [many(0)?, many(1)?, many(2)?, many(3)?],
            kind,
        })
    }

    /// Outputs [M, N] for rows of codes with as many columns as this weight.
    pub(crate) fn scaled(&self, rows: &CudaRows, scaling: Scaling) -> Result<Tensor, KernelError> {
        let (count, width) = rows.codes.size2()?;
        let channels = self.codes.size()[0];
        assert_eq!(width, self.codes.size()[1], "activations have another width than the layer");
        let y = Tensor::f_empty([count, channels], (self.kind, self.codes.device()))?;
        let mode = match scaling {
            Scaling::Plain => 0,
            Scaling::Rounded => 1,
            Scaling::Magnitudes => 2,
        };
        let arguments = [
            Argument::Tensor(&rows.codes),
            Argument::Tensor(&self.codes),
            Argument::Tensor(&y),
            Argument::Tensor(&rows.scales),
            Argument::Tensor(&self.scale),
            Argument::from(self.bias.as_ref()),
            Argument::Int(count as i32),
            Argument::Int(channels as i32),
            Argument::Int(width as i32),
            // scaled.cuh counts types alike.
            Argument::Int(number_of(self.kind) as i32),
            Argument::Int(mode),
        ];
        if let Some((entries, weight)) = self.wide.as_ref().filter(|_| count > MOST_FEW) {
            // SAFETY: behind the operands these have the same parameters.
            unsafe { entries.multiply(rows, (weight, channels), &arguments[2..])? };
            return Ok(y);
        }
        let (function, blocks, threads, shared_bytes) =
            if let Some(number) = FEW_ROWS.iter().position(|&few| count <= few) {
                (self.few[number], (channels as u64).div_ceil(FEW_CHANNELS as u64), FEW_THREADS, 0)
            } else {
                let number = Tile::number(count, channels);
                let tile = TILES[number];
                (self.many[number], tile.blocks(count, channels) as u64, tile.threads, tile.shared_bytes)
            };
        let blocks = if count == 0 { 0 } else { blocks as u32 };
        let grid = Grid { blocks: [blocks, 1, 1], threads, shared_bytes };
        // SAFETY: these are the parameters of both sources' entries, and the tensors have the shapes that they tell.
        unsafe { function.launch(grid, &arguments)? };
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_have_low_tiles_and_large_products_large_ones() {
        let number = |rows, channels| Tile::number(rows, channels);
        assert_eq!([number(9, 4096), number(16, 4096), number(17, 4096), number(32, 64)], [0, 0, 1, 1]);
        assert_eq!(
            [number(33, 4096), number(512, 1024), number(512, 4096), number(4096, 4096)],
            [2, 2, 3, 3]
        );
        assert_eq!(TILES[3].blocks(129, 128), 2);
    }

    #[test]
    fn entries_are_listed_by_type_or_by_size() {
        for number in 0..4 {
            assert_eq!(FEW.functions[number], format!("int8_gemv_{}", FEW_ROWS[number]));
            assert_eq!(MANY.functions[number], format!("int8_gemm_{}", TILES[number].rows));
        }
        for (kind, name) in [(Kind::Float, "f32"), (Kind::Half, "f16"), (Kind::BFloat16, "bf16")] {
            assert_eq!(QUANTIZE.functions[number_of(kind)], format!("quantize_rows_{name}"));
            assert_eq!(NORMALIZE.functions[number_of(kind)], format!("rmsnorm_quantize_{name}"));
        }
    }
}
