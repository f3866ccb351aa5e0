//! The packed weight and its tiles.

use tch::{Device, Kind, TchError, Tensor};

use crate::packing::{self, OFFSET};

/// Codes of a weight [N, K], two a byte: in the i-th byte of a group stand its codes i (low) and i + g/2 (high),
/// so that unpacking writes neighbours.
#[derive(Debug)]
pub(super) struct PackedGroups {
    /// u8 [N, K/g, g/2].
    bytes: Tensor,
    group: i64,
}

/// Some output channels, unpacked.
#[derive(Debug)]
pub(super) struct Tile {
    /// The first output channel.
    pub(super) start: i64,
    /// Their number.
    pub(super) channels: i64,
}

impl PackedGroups {
    /// From `packed`, i32 [N, ⌈K/8⌉] in the order of [`packing`], with an even group.
    pub(super) fn new(
        packed: &Tensor,
        in_features: i64,
        group: i64,
        device: Device,
    ) -> Result<Self, TchError> {
        let codes = packing::unpack(&packed.f_to_device(device)?, in_features)?;
        let halves = codes.f_add_scalar(OFFSET)?.f_to_kind(Kind::Uint8)?.f_view([
            codes.size()[0],
            in_features / group,
            2,
            group / 2,
        ])?;
        let high = halves.f_select(2, 1)?.f_bitwise_left_shift_tensor_scalar(4)?;
        Ok(Self { bytes: halves.f_select(2, 0)?.f_bitwise_or_tensor(&high)?, group })
    }

    /// All channels as tiles of about `weights` weights.
    pub(super) fn tiles(&self, weights: i64) -> impl Iterator<Item = Tile> {
        let (out_features, in_features) = (self.out_features(), self.groups() * self.group);
        // Multiples of 8, for CUDA.
        let step = ((weights / in_features).max(8) / 8 * 8).min(out_features);
        (0..out_features)
            .step_by(step as usize)
            .map(move |start| Tile { start, channels: step.min(out_features - start) })
    }

    /// Codes from 0 to 15 of a tile, i8 [channels, K/g, g].
    pub(super) fn unpack(&self, tile: &Tile) -> Result<Tensor, TchError> {
        let bytes = self.bytes.f_narrow(0, tile.start, tile.channels)?;
        let shape = [tile.channels, self.groups(), 2, self.group / 2];
        let codes = Tensor::f_empty(shape, (Kind::Int8, bytes.device()))?;
        codes.f_select(2, 0)?.f_copy_(&packing::low(&bytes)?)?;
        codes.f_select(2, 1)?.f_copy_(&packing::high(&bytes)?)?;
        codes.f_view([tile.channels, self.groups(), self.group])
    }

    pub(super) fn out_features(&self) -> i64 {
        self.bytes.size()[0]
    }

    pub(super) fn groups(&self) -> i64 {
        self.bytes.size()[1]
    }

    /// The tensor, to be counted.
    pub(super) fn tensor(&self) -> &Tensor {
        &self.bytes
    }
}
