//! Progressive weights ([`mod@crate::progressive`]): a tile becomes int8 and is multiplied as a whole.

use tch::{Kind, TchError, Tensor};

use super::tile::PackedGroups;
use super::{serves, tile_weights};
use crate::activations::{Activations, Int8Rows};
use crate::int8::int_mm;
use crate::kernel::{Kernel, Layer, PreparedLinear, bytes_of};
use crate::packing::OFFSET;
use crate::weight::{Codes, KernelError, QuantizedWeight};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Progressive;

impl Kernel for Progressive {
    fn supports(&self, layer: &Layer) -> bool {
        layer.group().is_some_and(|group| serves(layer, group, layer.in_features))
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::Progressive { packed, group_scale, group_zero, channel_scale, group } = weight.codes()
        else {
            unreachable!("the table has it for progressive W4A8 only");
        };
        let bias = weight.bias().map(|bias| bias.f_to_device_(layer.device, Kind::Float, false, false));
        Ok(Box::new(PreparedProgressive {
            weight: PackedGroups::new(packed, weight.in_features(), *group, layer.device)?,
            group_scale: group_scale.f_to_device(layer.device)?,
            // Nibbles are codes + 8.
            group_zero: group_zero.f_add_scalar(OFFSET)?.f_to_device(layer.device)?,
            channel_scale: channel_scale.f_to_device(layer.device)?.f_view([-1])?,
            bias: bias.transpose()?,
        }))
    }
}

#[derive(Debug)]
struct PreparedProgressive {
    weight: PackedGroups,
    /// i8 [N, K/g].
    group_scale: Tensor,
    /// i8 [N, K/g], for nibbles.
    group_zero: Tensor,
    /// Floating point `[N]`, as stored.
    channel_scale: Tensor,
    /// f32 `[N]`.
    bias: Option<Tensor>,
}

impl PreparedProgressive {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let rows = Int8Rows::quantize(x, &Activations::Dynamic)?;
        let options = (Kind::Float, x.device());
        let sums = Tensor::f_empty([rows.codes.size()[0], self.weight.out_features()], options)?;
        for tile in self.weight.tiles(tile_weights(x.device())) {
            let of_tile = |tensor: &Tensor| tensor.f_narrow(0, tile.start, tile.channels)?.f_unsqueeze(-1);
            let mut weight = self.weight.unpack(&tile)?;
            let _ = weight.f_sub_(&of_tile(&self.group_zero)?)?.f_mul_(&of_tile(&self.group_scale)?)?;
            let weight = weight.f_view([tile.channels, -1])?;
            let product = int_mm(&rows.codes, &weight)?;
            sums.f_narrow(1, tile.start, tile.channels)?.f_copy_(&product)?;
        }
        rows.scaled(&sums, &self.channel_scale.f_to_kind(Kind::Float)?, self.bias.as_ref())
    }
}

impl PreparedLinear for PreparedProgressive {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        let always = [self.weight.tensor(), &self.group_scale, &self.group_zero, &self.channel_scale];
        bytes_of(always.into_iter().chain(&self.bias))
    }
}
