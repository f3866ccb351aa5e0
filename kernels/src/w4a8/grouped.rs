//! 4-bit weights whose groups have floating-point scales: the int32 sums of each group are scaled and added.
//! This is compressed-tensors' W4A8; [`super::Progressive`] needs one product where this needs K/g.

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
pub(crate) struct Grouped;

impl Kernel for Grouped {
    fn supports(&self, layer: &Layer) -> bool {
        layer.group().is_some_and(|group| serves(layer, group, group))
    }

    fn prepare(
        &self,
        weight: &QuantizedWeight,
        layer: &Layer,
    ) -> Result<Box<dyn PreparedLinear>, KernelError> {
        let Codes::Int4A8 { packed, scale, group } = weight.codes() else {
            unreachable!("the table has it for W4A8 with floating-point scales only");
        };
        let bias = weight.bias().map(|bias| bias.f_to_device_(layer.device, Kind::Float, false, false));
        Ok(Box::new(PreparedGrouped {
            weight: PackedGroups::new(packed, weight.in_features(), *group, layer.device)?,
            scale: scale.f_to_device_(layer.device, layer.kind, false, false)?.f_tr()?.f_contiguous()?,
            bias: bias.transpose()?,
            group: *group,
        }))
    }
}

#[derive(Debug)]
struct PreparedGrouped {
    weight: PackedGroups,
    /// [K/g, N] in the activations' type.
    scale: Tensor,
    /// f32 `[N]`.
    bias: Option<Tensor>,
    group: i64,
}

impl PreparedGrouped {
    fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let rows = Int8Rows::quantize(x, &Activations::Dynamic)?;
        let (count, groups) = (rows.codes.size()[0], self.weight.groups());
        // [K/g, M, g]
        let codes = rows.codes.f_view([count, groups, self.group])?.f_transpose(0, 1)?.f_contiguous()?;
        let options = (Kind::Float, x.device());
        let sums = Tensor::f_zeros([count, self.weight.out_features()], options)?;
        for tile in self.weight.tiles(tile_weights(x.device())) {
            let weight =
                self.weight.unpack(&tile)?.f_sub_scalar_(OFFSET)?.f_transpose(0, 1)?.f_contiguous()?;
            let scale = self.scale.f_narrow(1, tile.start, tile.channels)?.f_to_kind(Kind::Float)?;
            let mut sums = sums.f_narrow(1, tile.start, tile.channels)?;
            for group in 0..groups {
                let product = int_mm(&codes.f_select(0, group)?, &weight.f_select(0, group)?)?;
                let _ = sums.f_addcmul_(&product.f_to_kind(Kind::Float)?, &scale.f_select(0, group)?)?;
            }
        }
        let one = Tensor::f_ones([1], options)?;
        rows.scaled(&sums, &one, self.bias.as_ref())
    }
}

impl PreparedLinear for PreparedGrouped {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.multiply(x).expect("its shape was checked when the layer was prepared")
    }

    fn bytes(&self) -> u64 {
        bytes_of([self.weight.tensor(), &self.scale].into_iter().chain(&self.bias))
    }
}
