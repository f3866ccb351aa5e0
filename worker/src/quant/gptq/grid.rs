//! The scales of each profile.

use qpipe_kernels::gptq::ZeroPoint;
use qpipe_kernels::{affine, symmetric};
use qpipe_nodes::kinds::{self, GptqProfile};
use tch::{Kind, TchError, Tensor};

use super::factor::Factor;
use super::running;
use super::solve::{Rule, Scales};

/// How a profile rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    profile: GptqProfile,
    bits: u32,
    /// Input channels that share a scale; `None`: all of an output channel.
    pub(super) group: Option<i64>,
    is_symmetric: bool,
    has_static_groups: bool,
}

impl Grid {
    pub(super) fn of(options: &kinds::Gptq) -> Self {
        Self {
            profile: options.profile,
            bits: options.bits(),
            group: options.group().map(i64::from),
            is_symmetric: options.symmetric(),
            has_static_groups: options.static_groups(),
        }
    }

    /// The rule for `weight`, floating point [N, K].
    pub(super) fn rule(&self, weight: &Tensor, factor: &Factor) -> Result<Rule, TchError> {
        match self.profile {
            GptqProfile::Llmc => llmc(weight, self.bits, self.group, self.is_symmetric),
            GptqProfile::Gptqmodel => Ok(Rule {
                bits: self.bits,
                is_signed: false,
                zero_point: ZeroPoint::AfterRounding,
                kind: Kind::Float,
                scales: match self.group {
                    Some(group) if self.has_static_groups => self.static_groups(weight, factor, group)?,
                    group => Scales::Running { group, symmetric: self.is_symmetric },
                },
                is_batched: false,
            }),
        }
    }

    /// GPTQModel's scales of the original weights, dead channels being 0.
    fn static_groups(&self, weight: &Tensor, factor: &Factor, group: i64) -> Result<Scales, TchError> {
        let (rows, columns) = weight.size2()?;
        let mut weight = weight.f_to_dtype(Kind::Float, false, true)?;
        if let Some(dead) = &factor.dead {
            let _ = weight.f_masked_fill_(dead, 0.0)?;
        }
        let groups = weight.f_view([rows * columns / group, group])?;
        let (scale, zero) = running::parameters(&groups, self.bits, self.is_symmetric)?;
        let shape = [rows, columns / group];
        Ok(Scales::Given { scale: scale.f_view(shape)?, zero: Some(zero.f_view(shape)?) })
    }

    /// The scale's definition, for the record.
    pub(super) fn scale_rule(&self) -> &'static str {
        match (self.profile, self.is_symmetric) {
            (GptqProfile::Llmc, true) => "largest magnitude / half of the range, in the weights' type",
            (GptqProfile::Llmc, false) => "range of the weights / steps, in the weights' type",
            (GptqProfile::Gptqmodel, true) => "twice the largest magnitude / steps, in float32",
            (GptqProfile::Gptqmodel, false) => "range of the weights / steps, in float32",
        }
    }
}

/// llm-compressor's rule: scales of the original `weight` in its own type, `memoryless_minmax`.
pub(in crate::quant) fn llmc(
    weight: &Tensor,
    bits: u32,
    group: Option<i64>,
    is_symmetric: bool,
) -> Result<Rule, TchError> {
    let (rows, columns) = weight.size2()?;
    let grouped = weight.f_view([rows, -1, group.unwrap_or(columns)])?;
    let floats = |tensor: Tensor| tensor.f_squeeze_dim(-1)?.f_to_kind(Kind::Float);
    let scales = if is_symmetric {
        Scales::Given { scale: floats(symmetric::scales(&grouped, bits))?, zero: None }
    } else {
        let (scale, zero) = affine::scales_and_zeros(&grouped, bits);
        let half = 1_i64 << (bits - 1);
        Scales::Given { scale: floats(scale)?, zero: Some(floats(zero)?.f_sub_scalar(half)?) }
    };
    Ok(Rule {
        bits,
        is_signed: true,
        zero_point: ZeroPoint::BeforeRounding,
        kind: weight.kind(),
        scales,
        is_batched: true,
    })
}
