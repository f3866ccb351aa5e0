//! Sixteen rows of a block, one in each lane.

use half::{bf16, f16};
use tch::Kind;

use super::ZeroPoint;
use crate::cpu::Isa;
use crate::cpu::float::Float;

/// Rows of a strip: a vector of AVX-512, two of AVX2.
pub(super) const LANES: usize = 16;

/// A value of each row.
type Lanes = [f32; LANES];

/// What all strips of a block share. See [`super::Grid`].
pub(super) struct Task<'a> {
    /// [B, B].
    pub(super) factor: &'a [f32],
    /// [N, G].
    pub(super) scale: &'a [f32],
    /// [N, G].
    pub(super) zero: Option<&'a [f32]>,
    pub(super) groups: usize,
    /// `[B]`.
    pub(super) group_of: &'a [usize],
    pub(super) zero_point: ZeroPoint,
    pub(super) lowest: f32,
    pub(super) highest: f32,
    pub(super) kind: Kind,
    pub(super) isa: Isa,
}

/// Up to [`LANES`] rows: what goes in and what comes out, [rows, B] each.
pub(super) struct Strip<'a> {
    pub(super) first_row: usize,
    pub(super) weights: &'a [f32],
    pub(super) codes: &'a mut [u8],
    pub(super) values: &'a mut [f32],
    pub(super) errors: &'a mut [f32],
}

impl Task<'_> {
    /// Rounds a strip.
    pub(super) fn round(&self, strip: Strip<'_>) {
        // Not for AVX-512: the compiler then takes vectors of columns, and gathers and scatters what lies lane by lane.
        #[cfg(target_arch = "x86_64")]
        if self.isa >= Isa::Avx2 {
            // SAFETY: `isa` says that the processor has the instructions.
            return unsafe { self.round_avx2(strip) };
        }
        self.round_any(strip);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn round_avx2(&self, strip: Strip<'_>) {
        self.round_any(strip);
    }

    /// Compiled anew for each set of instructions: loops over lanes become vectors.
    #[inline(always)]
    fn round_any(&self, strip: Strip<'_>) {
        let columns = self.group_of.len();
        let rows = strip.weights.len() / columns;
        // Lanes without a row hold zeros, and scales of 1.
        let mut weights = vec![[0.0; LANES]; columns];
        for (row, source) in strip.weights.chunks_exact(columns).enumerate() {
            for (column, weight) in source.iter().enumerate() {
                weights[column][row] = *weight;
            }
        }
        let mut group = usize::MAX;
        let (mut scale, mut zero) = ([1.0; LANES], [0.0; LANES]);
        for column in 0..columns {
            if self.group_of[column] != group {
                group = self.group_of[column];
                for row in 0..rows {
                    let place = (strip.first_row + row) * self.groups + group;
                    scale[row] = self.scale[place];
                    zero[row] = self.zero.map_or(0.0, |zero| zero[place]);
                }
            }
            let (done, behind) = weights.split_at_mut(column + 1);
            let weight = &done[column];
            let code = self.codes(weight, &scale, &zero);
            let value = self.values(&code, &scale, &zero);
            let factor = &self.factor[column * columns..(column + 1) * columns];
            let mut error = [0.0; LANES];
            for lane in 0..LANES {
                error[lane] = (weight[lane] - value[lane]) / factor[column];
            }
            for (weight, factor) in behind.iter_mut().zip(&factor[column + 1..]) {
                for lane in 0..LANES {
                    // Rounded twice: Rust never fuses the two.
                    weight[lane] -= error[lane] * factor;
                }
            }
            for row in 0..rows {
                let place = row * columns + column;
                strip.codes[place] = (code[row] - self.lowest) as u8;
                strip.values[place] = value[row];
                strip.errors[place] = error[row];
            }
        }
    }

    #[inline(always)]
    fn codes(&self, weight: &Lanes, scale: &Lanes, zero: &Lanes) -> Lanes {
        let mut code = [0.0; LANES];
        for lane in 0..LANES {
            let scaled = weight[lane] / scale[lane];
            code[lane] = match self.zero_point {
                ZeroPoint::BeforeRounding => {
                    (scaled + zero[lane]).max(self.lowest).min(self.highest).round_ties_even()
                }
                ZeroPoint::AfterRounding => {
                    (scaled.round_ties_even() + zero[lane]).max(self.lowest).min(self.highest)
                }
            };
        }
        code
    }

    #[inline(always)]
    fn values(&self, code: &Lanes, scale: &Lanes, zero: &Lanes) -> Lanes {
        let mut value = [0.0; LANES];
        for lane in 0..LANES {
            // A difference of codes is a whole number below 256, which every type holds.
            value[lane] = (code[lane] - zero[lane]) * scale[lane];
        }
        match self.kind {
            Kind::BFloat16 => value.map(bf16::rounded),
            Kind::Half => value.map(f16::rounded),
            _ => value,
        }
    }
}
