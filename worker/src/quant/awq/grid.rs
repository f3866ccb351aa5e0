//! The 4-bit codes of groups.

use qpipe_kernels::{affine, symmetric};
use tch::{Kind, TchError, Tensor};

/// Bits of a code.
pub(super) const BITS: u32 = 4;
/// What is between signed codes and codes from 0.
const HALF: i64 = 1 << (BITS - 1);

/// How the weights of a group become codes. Scales and zero points are compressed-tensors', see
/// [`qpipe_kernels::affine`] and [`qpipe_kernels::symmetric`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// Input channels that share a scale.
    pub(super) group: i64,
    /// Without zero points.
    pub(super) symmetric: bool,
    /// The type of weights when their scales are computed, and of the scales; `None`: the weights' own.
    pub(super) kind: Option<Kind>,
}

impl Grid {
    /// The scale's definition, for the record.
    pub(super) fn scale_rule(&self) -> &'static str {
        if self.symmetric {
            "largest magnitude of the group / 7.5"
        } else {
            "range of the group, zero included, / 15"
        }
    }
}

/// A rounded weight: (code - zero) · scale.
#[derive(Debug)]
pub(super) struct Rounded {
    /// u8 [N, K], from 0 to 15.
    pub(super) codes: Tensor,
    /// [N, G].
    pub(super) scale: Tensor,
    /// u8 [N, G], from 0 to 15; 8 everywhere where there are no zero points.
    pub(super) zero: Tensor,
}

impl Grid {
    /// Rounds `weight` [N, K], in its own type.
    pub(super) fn round(&self, weight: &Tensor) -> Result<Rounded, TchError> {
        let (out_features, in_features) = weight.size2()?;
        let weight = weight.f_to_kind(self.kind.unwrap_or(weight.kind()))?;
        let groups = weight.f_view([out_features, in_features / self.group, self.group])?;
        let (scale, zero) = self.parameters(&groups)?;
        // Signed and in the weights' type, clamped before it is rounded: the order of compressed-tensors.
        let signed = zero.f_to_kind(weight.kind())?.f_sub_scalar(HALF)?;
        let mut codes = groups / &scale + signed;
        let _ = codes.f_clamp_(-HALF as f64, (HALF - 1) as f64)?.f_round_()?;
        let codes = codes.f_to_kind(Kind::Float)?.f_add_scalar(HALF)?.f_to_kind(Kind::Uint8)?;
        Ok(Rounded {
            codes: codes.f_view([out_features, in_features])?,
            scale: scale.f_squeeze_dim(-1)?,
            zero: zero.f_squeeze_dim(-1)?,
        })
    }

    /// What `weight`, f32 [N, K], is rounded to, in f32.
    pub(super) fn value(&self, weight: &Tensor) -> Result<Tensor, TchError> {
        let (out_features, in_features) = weight.size2()?;
        let groups = weight.f_view([out_features, in_features / self.group, self.group])?;
        let (scale, zero) = self.parameters(&groups)?;
        let zero = zero.f_to_kind(Kind::Float)?;
        let mut value = groups / &scale;
        let _ = value.f_round_()?.f_add_(&zero)?.f_clamp_(0.0, (2 * HALF - 1) as f64)?;
        let _ = value.f_sub_(&zero)?.f_mul_(&scale)?;
        value.f_view([out_features, in_features])
    }

    /// Scales, in the type of `groups` [N, G, g], and zero points, u8, of [N, G, 1] each.
    fn parameters(&self, groups: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        if self.symmetric {
            let scale = symmetric::scales(groups, BITS);
            let zero = scale.f_full_like(HALF as f64)?.f_to_kind(Kind::Uint8)?;
            return Ok((scale, zero));
        }
        Ok(affine::scales_and_zeros(groups, BITS))
    }
}
