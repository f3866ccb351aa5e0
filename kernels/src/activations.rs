//! Activations as int8 codes, and the scaling of integer sums: what every kernel with int8 activations does
//! before and after its product.

use tch::{Kind, TchError, Tensor};

use crate::{symmetric, torchao};

/// On CUDA, `_int_mm` wants more than 16 rows; fewer are filled up to this.
pub(crate) const CUDA_LEAST_ROWS: i64 = 32;

/// How activations become codes.
#[derive(Debug)]
pub(crate) enum Activations {
    /// A scale a token, see [`crate::symmetric`].
    Dynamic,
    /// This scale, `[1]` in the activations' type, for all.
    Static(Tensor),
    /// A scale a token, see [`crate::torchao`].
    Torchao,
}

/// The rows of an activation, quantized.
#[derive(Debug)]
pub(crate) struct Int8Rows {
    /// i8 [M, K]; on CUDA with rows of zeros where there are few.
    pub(crate) codes: Tensor,
    /// f32 [M, 1], or `[1]` where all rows share it.
    scale: Tensor,
    /// The activation's shape without K.
    leading: Vec<i64>,
    kind: Kind,
    rows: i64,
    /// torchao rounds the sums, scaled by the activation's scale, to the activation's type.
    rounds_sums: bool,
}

impl Int8Rows {
    /// Quantizes `x` [..., K].
    pub(crate) fn quantize(x: &Tensor, activations: &Activations) -> Result<Self, TchError> {
        let mut leading = x.size();
        let in_features = leading.pop().expect("activations have a last dimension");
        let x = x.f_reshape([-1, in_features])?;
        let (codes, scale) = match activations {
            Activations::Static(scale) => (symmetric::codes(&x, scale, 8), scale.shallow_clone()),
            Activations::Dynamic => {
                let scale = symmetric::scales(&x, 8);
                (symmetric::codes(&x, &scale, 8), scale)
            }
            Activations::Torchao => {
                let scale = torchao::scales(&x)?;
                (torchao::codes(&x, &scale)?, scale)
            }
        };
        let rows = codes.size()[0];
        let missing = if codes.device().is_cuda() { (CUDA_LEAST_ROWS - rows).max(0) } else { 0 };
        let codes = if missing > 0 { codes.f_constant_pad_nd([0, 0, 0, missing])? } else { codes };
        let rounds_sums = matches!(activations, Activations::Torchao);
        Ok(Self { codes, scale: scale.f_to_kind(Kind::Float)?, leading, kind: x.kind(), rows, rounds_sums })
    }

    /// Makes `sums`, f32 [M, N] of these codes times a weight's, the layer's output [..., N]: times the scales
    /// of rows and output channels (f32 `[N]`), plus the bias (f32 `[N]`), in the activation's type.
    pub(crate) fn scaled(
        mut self,
        sums: &Tensor,
        channel_scale: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Tensor, TchError> {
        let mut y = sums.f_narrow(0, 0, self.rows)?;
        let _ = y.f_mul_(&self.scale)?;
        if self.rounds_sums {
            y = y.f_to_kind(self.kind)?.f_to_kind(Kind::Float)?;
        }
        let _ = y.f_mul_(channel_scale)?;
        if let Some(bias) = bias {
            let _ = y.f_add_(bias)?;
        }
        self.leading.push(y.size()[1]);
        y.f_to_kind(self.kind)?.f_contiguous()?.f_view(self.leading.as_slice())
    }
}
