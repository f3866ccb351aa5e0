//! Products of many rows of int8 codes by the instructions that compute capability 9.0 has for them.

use tch::{Device, Tensor};

use super::launches::CudaRows;
use crate::cuda::{self, Argument, Function, Grid, Source, TensorMap};
use crate::weight::KernelError;

/// Rows of codes times a weight.
pub(crate) static WIDE: Source = Source::new(
    "int8_wgmma",
    include_str!("../../cuda/int8_wgmma.cu"),
    &["int8_wgmma_64x64", "int8_wgmma_128x64", "int8_wgmma_128x128", "int8_wgmma_128x256"],
);

/// Bytes of a row of a box of either operand, and its rows.
const BOX: (u32, u32) = (128, 64);
/// Up to so many rows a tile of 64 has them all.
const LOW: i64 = 64;

/// A tile of outputs: one of the entries. Two of them are a pair, of one column of tiles (`is_tall`) or of one row.
#[derive(Clone, Copy, Debug)]
struct Tile {
    rows: i64,
    channels: i64,
    is_tall: bool,
    threads: u32,
    shared_bytes: u32,
    /// Blocks that a multiprocessor has at once.
    blocks: u32,
    /// Cycles that a tile takes: for each input channel, and beside that. Measured on an H100.
    cycles: (f64, f64),
}

/// In the order of the entries.
const TILES: [Tile; 4] = [
    Tile {
        rows: 64,
        channels: 64,
        is_tall: false,
        threads: 160,
        shared_bytes: 99_408,
        blocks: 2,
        cycles: (4.2, 1000.0),
    },
    Tile {
        rows: 128,
        channels: 64,
        is_tall: false,
        threads: 288,
        shared_bytes: 230_528,
        blocks: 1,
        cycles: (2.9, 1000.0),
    },
    Tile {
        rows: 128,
        channels: 128,
        is_tall: false,
        threads: 288,
        shared_bytes: 230_496,
        blocks: 1,
        cycles: (4.4, 1500.0),
    },
    Tile {
        rows: 128,
        channels: 256,
        is_tall: true,
        threads: 384,
        shared_bytes: 230_464,
        blocks: 1,
        cycles: (8.0, 2500.0),
    },
];

impl Tile {
    /// Pairs of tiles for so many outputs.
    fn pairs(&self, rows: i64, channels: i64) -> u64 {
        let (tall, broad) = if self.is_tall { (2, 1) } else { (1, 2) };
        let tiles = |count: i64, tile: i64| count.cast_unsigned().div_ceil(tile.cast_unsigned());
        tiles(rows, tall * self.rows) * tiles(channels, broad * self.channels)
    }

    /// Pairs that a card has at once.
    fn at_once(&self, processors: u32) -> u64 {
        u64::from((processors * self.blocks / 2).max(1))
    }

    /// Cycles for so many outputs of so many input channels.
    fn cost(&self, [rows, channels, width]: [i64; 3], processors: u32) -> f64 {
        let turns = self.pairs(rows, channels).div_ceil(self.at_once(processors));
        turns as f64 * (self.cycles.0 * width as f64 + self.cycles.1)
    }

    /// The number of the tile that takes least.
    fn number([rows, channels, width]: [i64; 3], processors: u32) -> usize {
        if rows <= LOW {
            return 0;
        }
        let cost = |number: &usize| TILES[*number].cost([rows, channels, width], processors);
        (0..TILES.len()).min_by(|one, other| cost(one).total_cmp(&cost(other))).unwrap_or(0)
    }
}

/// The entries on a device.
#[derive(Debug)]
pub(crate) struct Entries([Function; 4]);

impl Entries {
    /// Those of `device`; `None` where it has other instructions.
    pub(crate) fn of(device: Device) -> Result<Option<Self>, KernelError> {
        if cuda::capability(&WIDE, device) != Some((9, 0)) {
            return Ok(None);
        }
        let of =
            |number: usize| Function::of(&WIDE, WIDE.functions[number], device, TILES[number].shared_bytes);
        Ok(Some(Self([of(0)?, of(1)?, of(2)?, of(3)?])))
    }

    /// How the copy engine is told of `codes`, i8 [N, K] with some of either, contiguous, K a multiple of 16.
    pub(crate) fn map(codes: &Tensor) -> Result<TensorMap, KernelError> {
        Ok(TensorMap::of(codes, BOX.0, BOX.1)?)
    }

    /// Writes the outputs of `rows`, of which there are some, and a weight with so many channels; `others` is what the entries have behind both
    /// operands.
    ///
    /// # Safety
    ///
    /// They are those of int8_wgmma's entries, and have the shapes that these tell.
    pub(crate) unsafe fn multiply(
        &self,
        rows: &CudaRows,
        (weight, channels): (&TensorMap, i64),
        others: &[Argument<'_>],
    ) -> Result<(), KernelError> {
        let (count, width) = rows.codes.size2()?;
        let codes = Self::map(&rows.codes)?;
        let processors = self.0[0].processors();
        let number = Tile::number([count, channels, width], processors);
        let tile = TILES[number];
        let pairs = tile.pairs(count, channels).min(tile.at_once(processors));
        let grid =
            Grid { blocks: [2 * pairs as u32, 1, 1], threads: tile.threads, shared_bytes: tile.shared_bytes };
        let arguments = [&[Argument::Map(&codes), Argument::Map(weight)], others].concat();
        // SAFETY: the caller promises it; both maps are of the entries' boxes.
        unsafe { self.0[number].launch(grid, &arguments)? };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_those_that_were_fastest_on_an_h100() {
        let number = |shape| Tile::number(shape, 132);
        assert_eq!([number([5, 4096, 4096]), number([64, 14336, 4096])], [0, 0]);
        assert_eq!([number([128, 4096, 4096]), number([256, 4096, 4096])], [1, 1]);
        assert_eq!([number([512, 4096, 4096]), number([2048, 1024, 4096])], [2, 2]);
        assert_eq!([number([1024, 4096, 4096]), number([256, 14336, 4096])], [3, 3]);
        assert_eq!(number([4096, 4096, 14336]), 3);
    }

    #[test]
    fn pairs_cover_all_outputs() {
        assert_eq!(TILES[0].pairs(65, 129), 2 * 2);
        assert_eq!(TILES[3].pairs(257, 257), 2 * 2);
        for (number, tile) in TILES.iter().enumerate() {
            assert_eq!(WIDE.functions[number], format!("int8_wgmma_{}x{}", tile.rows, tile.channels));
        }
    }
}
