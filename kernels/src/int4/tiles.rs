//! A tile of output channels unpacked and multiplied, straight from compressed-tensors' packing.
//!
//! Any type, any device, any number of rows, all groups in which two codes that share a byte share a scale.

use tch::{Device, Kind, TchError, Tensor};

use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::packing::{self, OFFSET};
use crate::weight::{Codes, KernelError, QuantizedWeight};

use super::TILE_WEIGHTS;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Tiles;

impl Kernel for Tiles {
    /// Pairs of codes share a byte and must share a scale.
    fn supports(&self, layer: &Layer) -> bool {
        layer.group().is_some_and(|group| group == layer.in_features || group % 2 == 0)
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
        let in_features = weight.in_features();
        let bytes = packing::bytes(&packed.f_to_device(layer.device)?)?;
        // One scale a row serves the filling of the last word too: activations are 0 there.
        let (bytes, group) = if *group == in_features {
            let padded = bytes.size()[1] * 2;
            (bytes, padded)
        } else {
            (bytes.f_narrow(1, 0, in_features / 2)?.f_contiguous()?, *group)
        };
        Ok(Box::new(PreparedTiles {
            padding: bytes.size()[1] * 2 - in_features,
            group,
            scale: scale.f_to_device_(layer.device, layer.kind, false, false)?,
            zero: zero.map(|zero| Zeros::pack(zero, layer.device)).transpose()?,
            bias: weight
                .bias()
                .map(|bias| bias.f_to_device_(layer.device, layer.kind, false, false))
                .transpose()?,
            bytes,
        }))
    }
}

/// Zero points, two a byte: with f32 scales a byte each would be more than 4.3 bits a weight.
#[derive(Debug)]
pub(super) struct Zeros {
    /// u8 [N, ⌈G/2⌉].
    bytes: Tensor,
    /// G.
    groups: i64,
}

impl Zeros {
    /// From codes, i8 [N, G].
    pub(super) fn pack(zero: &Tensor, device: Device) -> Result<Self, TchError> {
        let groups = zero.size2()?.1;
        let bytes = packing::bytes(&packing::pack(zero)?)?.f_narrow(1, 0, (groups + 1) / 2)?;
        Ok(Self { bytes: bytes.f_contiguous()?.f_to_device(device)?, groups })
    }

    /// u8 [N, ⌈G/2⌉], the first of two in the lower half.
    pub(super) fn bytes(&self) -> &Tensor {
        &self.bytes
    }

    /// The nibbles that stand for 0, i8 [count, G, 1], of some output channels.
    fn of_nibbles(&self, start: i64, count: i64) -> Result<Tensor, TchError> {
        let bytes = self.bytes.f_narrow(0, start, count)?;
        let nibbles = Tensor::f_stack(&[packing::low(&bytes)?, packing::high(&bytes)?], 2)?;
        let nibbles = nibbles.f_view([count, -1])?.f_narrow(1, 0, self.groups)?;
        nibbles.f_to_kind(Kind::Int8)?.f_unsqueeze(-1)
    }
}

#[derive(Debug)]
struct PreparedTiles {
    /// u8 [N, K/2]: byte j of a row holds codes 2j (low) and 2j+1 (high).
    bytes: Tensor,
    /// [N, K/g] in the activations' type.
    scale: Tensor,
    /// `None`: [`OFFSET`] everywhere.
    zero: Option<Zeros>,
    /// `[N]` in the activations' type.
    bias: Option<Tensor>,
    group: i64,
    /// Columns of zeros that activations lack.
    padding: i64,
}

impl PreparedTiles {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let out_features = self.bytes.size()[0];
        let pairs = self.bytes.size()[1];
        let groups = self.scale.size()[1];
        let mut shape = x.size();
        let in_features = shape.pop().expect("activations have a last dimension");
        shape.push(out_features);

        // Even channels first, then odd ones: the order in which a tile is unpacked.
        let x = x.f_reshape([-1, in_features])?;
        let x = if self.padding > 0 { x.f_constant_pad_nd([0, self.padding])? } else { x };
        let x = x.f_view([-1, pairs, 2])?.f_transpose(1, 2)?.f_reshape([-1, 2 * pairs])?;

        let y = Tensor::f_empty([x.size()[0], out_features], (x.kind(), x.device()))?;
        let tile_rows = (TILE_WEIGHTS / (2 * pairs)).clamp(1, out_features);
        let tile = Tensor::f_empty([tile_rows, 2, groups, self.group / 2], (x.kind(), x.device()))?;
        for start in (0..out_features).step_by(tile_rows as usize) {
            let count = tile_rows.min(out_features - start);
            let bytes = self.bytes.f_narrow(0, start, count)?.f_view([count, groups, self.group / 2])?;
            let mut tile = tile.f_narrow(0, 0, count)?;
            let zero = self.zero.as_ref().map(|zero| zero.of_nibbles(start, count)).transpose()?;
            for (half, nibbles) in [packing::low(&bytes)?, packing::high(&bytes)?].iter().enumerate() {
                let mut codes = nibbles.f_view_dtype(Kind::Int8)?;
                let codes = match &zero {
                    Some(zero) => codes.f_sub_(zero)?,
                    None => codes.f_sub_scalar_(OFFSET)?,
                };
                tile.f_select(1, half as i64)?.f_copy_(&codes)?;
            }
            let scale = self.scale.f_narrow(0, start, count)?.f_view([count, 1, groups, 1])?;
            let _ = tile.f_mul_(&scale)?;
            let product = x.f_mm(&tile.f_view([count, 2 * pairs])?.f_tr()?)?;
            y.f_narrow(1, start, count)?.f_copy_(&product)?;
        }
        let y = match &self.bias {
            Some(bias) => y.f_add(bias)?,
            None => y,
        };
        y.f_view(shape.as_slice())
    }
}

impl PreparedLinear for PreparedTiles {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        let zero = self.zero.iter().map(|zero| &zero.bytes);
        bytes_of([&self.bytes, &self.scale].into_iter().chain(zero).chain(&self.bias))
    }
}
