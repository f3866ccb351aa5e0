//! Products of many rows with weights in four bits, by the instructions that compute capability 9.0 has for them: weights become numbers
//! of the activations' type in registers.

use tch::{Device, Kind, Tensor};

use crate::cuda::{self, Argument, Function, Grid, Source, TensorMap};
use crate::cuda_rows::number_of;
use crate::weight::KernelError;

/// By format, then by type, then by rows.
pub(crate) static WIDE: Source = Source::new(
    "w4_wgmma",
    include_str!("../cuda/w4_wgmma.cu"),
    &[
        "w4_wgmma_f16_32",
        "w4_wgmma_f16_64",
        "w4_wgmma_f16_128",
        "w4_wgmma_f16_256",
        "w4_wgmma_bf16_32",
        "w4_wgmma_bf16_64",
        "w4_wgmma_bf16_128",
        "w4_wgmma_bf16_256",
        "nf4_wgmma_f16_32",
        "nf4_wgmma_f16_64",
        "nf4_wgmma_f16_128",
        "nf4_wgmma_f16_256",
        "nf4_wgmma_bf16_32",
        "nf4_wgmma_bf16_64",
        "nf4_wgmma_bf16_128",
        "nf4_wgmma_bf16_256",
    ],
);

/// How codes stand for weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Scales a group, with zero points or without.
    Integer,
    /// Numbers of a table, with largest magnitudes a block.
    Nf4,
}

/// Output channels of every tile, and input channels of a stage.
const CHANNELS: u64 = 128;
const STAGE: u64 = 128;
/// Threads of a block.
const THREADS: u32 = 384;
/// Bytes of a row of a box of codes, and rows of it.
const CODES_BOX: (u32, u32) = (64, 128);
/// Bytes of a row of a box of activations, and into how many boxes a tile's are cut.
const ROWS_BOX: (u32, u32) = (128, 4);
/// From so many of its tiles on the largest is fastest. Measured on an H100, as the rest of the choice.
const MANY_TILES: u64 = 64;
/// Stages that a part of the input channels costs beside its own.
const PART_STAGES: u64 = 6;

/// A tile: one of the entries.
#[derive(Clone, Copy, Debug)]
struct Tile {
    rows: u64,
    shared_bytes: u32,
    /// Blocks of a cluster.
    cluster: u64,
}

/// In the order of the entries.
const TILES: [Tile; 4] = [
    Tile { rows: 32, shared_bytes: 152_720, cluster: 4 },
    Tile { rows: 64, shared_bytes: 211_072, cluster: 4 },
    Tile { rows: 128, shared_bytes: 196_672, cluster: 4 },
    Tile { rows: 256, shared_bytes: 229_952, cluster: 2 },
];

impl Tile {
    /// Clusters for so many outputs, where each tile's input channels are cut into `splits` parts.
    fn clusters(&self, [rows, channels]: [u64; 2], splits: u64) -> u64 {
        rows.div_ceil(self.rows) * channels.div_ceil(CHANNELS * self.cluster / splits)
    }

    /// Clusters that a card has at once. Those of four leave multiprocessors over: an H100 with 132 has 30.
    fn at_once(&self, processors: u32) -> u64 {
        let processors = u64::from(processors);
        if self.cluster == 4 { processors * 30 / 132 } else { processors / self.cluster }.max(1)
    }
}

/// The number of the tile, and into how many parts its input channels are cut, for so many outputs of so many input channels.
fn choice([rows, channels, width]: [i64; 3], processors: u32) -> (usize, u64) {
    let [rows, channels, width] = [rows, channels, width].map(i64::cast_unsigned);
    let number = match rows {
        ..=32 => 0,
        33..=64 => 1,
        65..=128 => 2,
        _ if rows.div_ceil(TILES[3].rows) * channels.div_ceil(CHANNELS) >= MANY_TILES => 3,
        _ => 2,
    };
    let tile = TILES[number];
    if tile.cluster < 4 {
        return (number, 1);
    }
    let cost = |splits: u64| {
        let turns = tile.clusters([rows, channels], splits).div_ceil(tile.at_once(processors));
        turns * (width.div_ceil(STAGE).div_ceil(splits) + PART_STAGES)
    };
    (number, [1, 2, 4].into_iter().min_by_key(|&splits| cost(splits)).unwrap_or(1))
}

/// A weight, and the entries for it.
#[derive(Debug)]
pub(crate) struct Wide {
    codes: TensorMap,
    functions: [Function; 4],
}

impl Wide {
    /// For `codes`, u8 [N, K/2], contiguous, K a multiple of 32, which have to live as long, and activations of type `kind`. `None` where
    /// the device has other instructions, in f32, and for a weight without any codes.
    pub(crate) fn new(
        codes: &Tensor,
        format: Format,
        kind: Kind,
        device: Device,
    ) -> Result<Option<Self>, KernelError> {
        if kind == Kind::Float || codes.numel() == 0 || cuda::capability(&WIDE, device) != Some((9, 0)) {
            return Ok(None);
        }
        let first = 8 * usize::from(format == Format::Nf4) + 4 * (number_of(kind) - 1);
        let of = |number: usize| {
            Function::of(&WIDE, WIDE.functions[first + number], device, TILES[number].shared_bytes)
        };
        let functions = [of(0)?, of(1)?, of(2)?, of(3)?];
        Ok(Some(Self { codes: TensorMap::of(codes, CODES_BOX.0, CODES_BOX.1)?, functions }))
    }

    /// The product of `x` [M, K], contiguous, from an aligned address on, where M is not 0, and N output channels. `numbers` are what the entry
    /// has between y and m, and `group` is what it has behind k.
    ///
    /// # Safety
    ///
    /// They are those of the format's entries, and have the shapes that these tell.
    pub(crate) unsafe fn multiply(
        &self,
        x: &Tensor,
        out_features: i64,
        numbers: &[Argument<'_>],
        group: i64,
    ) -> Result<Tensor, KernelError> {
        let (rows, in_features) = x.size2()?;
        let y = Tensor::f_empty([rows, out_features], (x.kind(), x.device()))?;
        let processors = self.functions[0].processors();
        let (number, splits) = choice([rows, out_features, in_features], processors);
        let (tile, function) = (TILES[number], self.functions[number]);
        let map = TensorMap::of(x, ROWS_BOX.0, tile.rows as u32 / ROWS_BOX.1)?;
        let mut arguments = vec![Argument::Map(&map), Argument::Map(&self.codes), Argument::Tensor(&y)];
        arguments.extend_from_slice(numbers);
        let sizes = [rows, out_features, in_features, group, splits.cast_signed()];
        arguments.extend(sizes.map(|size| Argument::Int(size as i32)));
        let clusters = tile.clusters([rows, out_features].map(i64::cast_unsigned), splits);
        let blocks = tile.cluster * clusters.min(tile.at_once(processors));
        let grid = Grid { blocks: [blocks as u32, 1, 1], threads: THREADS, shared_bytes: tile.shared_bytes };
        // SAFETY: the caller promises it; both maps are of the entry's boxes.
        unsafe { function.launch(grid, &arguments)? };
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_those_that_were_fastest_on_an_h100() {
        let choice = |shape| {
            let (number, splits) = choice(shape, 132);
            (TILES[number].rows, splits)
        };
        assert_eq!([choice([17, 4096, 4096]), choice([17, 1024, 4096])], [(32, 2), (32, 4)]);
        assert_eq!([choice([32, 14336, 4096]), choice([64, 4096, 14336])], [(32, 1), (64, 2)]);
        assert_eq!([choice([128, 4096, 4096]), choice([256, 4096, 4096])], [(128, 2), (128, 1)]);
        assert_eq!([choice([256, 1024, 4096]), choice([512, 1024, 4096])], [(128, 4), (128, 2)]);
        assert_eq!([choice([512, 4096, 4096]), choice([256, 14336, 4096])], [(256, 1), (256, 1)]);
    }

    #[test]
    fn entries_are_in_order() {
        for (number, name) in WIDE.functions.iter().enumerate() {
            let (format, kind) = (["w4", "nf4"][number / 8], ["f16", "bf16"][number / 4 % 2]);
            assert_eq!(*name, format!("{format}_wgmma_{kind}_{}", TILES[number % 4].rows));
        }
    }
}
