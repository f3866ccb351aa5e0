//! Second moments XᵀX of the rows of a matrix, a running sum.
//!
//! The matrix is symmetric: only its lower triangle is computed and kept, in panels of whole rows. Panel p holds
//! rows p W to (p + 1) W and the columns up to its last row, so that each is one matrix product and the work is
//! (K + W) / 2K of the full product's.

use tch::{Device, Kind, TchError, Tensor};

/// A running XᵀX.
#[derive(Debug)]
pub struct Moments {
    channels: i64,
    /// f32 [rows of the panel, columns up to its last row].
    panels: Vec<Tensor>,
}

/// Rows of a panel, a function of K alone: it decides the order of no sum, but which of a library's kernels runs.
/// An eighth of K costs 12 % more than the half that is needed; narrower products run below full speed.
fn panel_rows(channels: i64) -> i64 {
    (channels / 8 / 64 * 64).clamp(128, 1024)
}

/// First row and number of rows of each panel.
fn panels_of(channels: i64) -> impl Iterator<Item = (i64, i64)> {
    let rows = panel_rows(channels);
    (0..channels).step_by(rows as usize).map(move |first| (first, rows.min(channels - first)))
}

impl Moments {
    /// Zero, for rows of `channels` values.
    pub fn new(channels: i64, device: Device) -> Result<Self, TchError> {
        let panels = panels_of(channels)
            .map(|(first, rows)| Tensor::f_zeros([rows, first + rows], (Kind::Float, device)))
            .collect::<Result<_, _>>()?;
        Ok(Self { channels, panels })
    }

    /// K.
    pub fn channels(&self) -> i64 {
        self.channels
    }

    /// Bytes of a running sum for rows of `channels` values.
    pub fn bytes(channels: i64) -> u64 {
        panels_of(channels).map(|(first, rows)| (rows * (first + rows) * 4) as u64).sum()
    }

    /// Adds xᵀx of every row of `x` [T, K]. Products of float32 are float32 (TF32 is off); those of 16-bit values
    /// are exact in float32, in which they are summed.
    pub fn add(&mut self, x: &Tensor) -> Result<(), TchError> {
        // On a GPU the tensor cores take 16-bit values and give float32; a CPU's libtorch has no such product.
        let widens = x.device().is_cuda() && matches!(x.kind(), Kind::BFloat16 | Kind::Half);
        let x = if widens { x.shallow_clone() } else { x.f_to_kind(Kind::Float)? };
        for ((first, rows), panel) in panels_of(self.channels).zip(&mut self.panels) {
            let left = x.f_narrow(1, first, rows)?.f_tr()?;
            let right = x.f_narrow(1, 0, first + rows)?;
            if widens {
                *panel = panel.f_addmm_dtype(&left, &right, Kind::Float)?;
            } else {
                let _ = panel.f_addmm_(&left, &right)?;
            }
        }
        Ok(())
    }

    /// The triangle without gaps: f32 [K (K + 1) / 2] on the CPU, entry (i, j <= i) at i (i + 1) / 2 + j. This is
    /// LAPACK's packed upper triangle, since the matrix is symmetric.
    pub fn packed(&self) -> Result<Tensor, TchError> {
        let mut rows = Vec::with_capacity(self.channels as usize);
        for ((first, count), panel) in panels_of(self.channels).zip(&self.panels) {
            let panel = panel.f_to_device(Device::Cpu)?;
            for row in 0..count {
                rows.push(panel.f_get(row)?.f_narrow(0, 0, first + row + 1)?);
            }
        }
        Tensor::f_cat(&rows, 0)
    }

    /// The running sum that [`Moments::packed`] was taken from, to go on with.
    pub fn from_packed(packed: &Tensor, channels: i64, device: Device) -> Result<Self, TchError> {
        let mut panels = Vec::new();
        for (first, count) in panels_of(channels) {
            let panel = Tensor::f_zeros([count, first + count], (Kind::Float, Device::Cpu))?;
            for row in 0..count {
                copy_row(&panel, row, packed, first + row)?;
            }
            panels.push(panel.f_to_device(device)?);
        }
        Ok(Self { channels, panels })
    }

    /// The whole matrix, f32 [K, K], on the sum's device.
    pub fn full(&self) -> Result<Tensor, TchError> {
        unpack(&self.packed()?, self.channels)
    }
}

/// The whole symmetric matrix, f32 [K, K] on the CPU, of a packed triangle.
pub fn unpack(packed: &Tensor, channels: i64) -> Result<Tensor, TchError> {
    let full = Tensor::f_zeros([channels, channels], (Kind::Float, Device::Cpu))?;
    for row in 0..channels {
        copy_row(&full, row, packed, row)?;
    }
    // Block by block: a second matrix beside this one would double the memory.
    for (first, rows) in panels_of(channels) {
        let mut diagonal = full.f_narrow(0, first, rows)?.f_narrow(1, first, rows)?;
        let mirrored = diagonal.f_tril(-1)?.f_tr()?;
        let _ = diagonal.f_add_(&mirrored)?;
        let below = full.f_narrow(0, first, rows)?.f_narrow(1, 0, first)?;
        let mut above = full.f_narrow(0, 0, first)?.f_narrow(1, first, rows)?;
        above.f_copy_(&below.f_tr()?)?;
    }
    Ok(full)
}

/// Puts row `row` of the packed triangle in front of row `to` of `matrix`.
fn copy_row(matrix: &Tensor, to: i64, packed: &Tensor, row: i64) -> Result<(), TchError> {
    let values = packed.f_narrow(0, row * (row + 1) / 2, row + 1)?;
    matrix.f_get(to)?.f_narrow(0, 0, row + 1)?.f_copy_(&values)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn rows(count: i64, channels: i64, seed: i64) -> Tensor {
        let _random = crate::torch::seeded(seed);
        Tensor::randn([count, channels], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn the_sum_is_that_of_the_full_product() {
        for channels in [1, 64, 128, 129, 300, 1100] {
            let (first, second) = (rows(7, channels, 1), rows(3, channels, 2));
            let mut moments = Moments::new(channels, Device::Cpu).unwrap();
            moments.add(&first).unwrap();
            moments.add(&second).unwrap();
            let all = Tensor::cat(&[first, second], 0).to_kind(Kind::Double);
            let full = moments.full().unwrap();
            let difference = (full.to_kind(Kind::Double) - all.tr().matmul(&all)).abs().max();
            assert!(f64::try_from(difference).unwrap() < 1e-4, "{channels}");
            assert!(full.equal(&full.tr()));
        }
    }

    #[test]
    fn a_packed_sum_goes_on_to_the_same_bits() {
        let channels = 300;
        let mut straight = Moments::new(channels, Device::Cpu).unwrap();
        straight.add(&rows(40, channels, 1)).unwrap();
        let packed = straight.packed().unwrap();
        assert_eq!(packed.size(), [channels * (channels + 1) / 2]);
        let mut resumed = Moments::from_packed(&packed, channels, Device::Cpu).unwrap();
        straight.add(&rows(40, channels, 2)).unwrap();
        resumed.add(&rows(40, channels, 2)).unwrap();
        assert!(straight.packed().unwrap().equal(&resumed.packed().unwrap()));
    }

    #[test]
    fn sixteen_bit_values_are_summed_in_float32() {
        let x = rows(64, 130, 1).to_kind(Kind::BFloat16);
        let mut moments = Moments::new(130, Device::Cpu).unwrap();
        moments.add(&x).unwrap();
        let wide = x.to_kind(Kind::Double);
        let difference = (moments.full().unwrap() - wide.tr().matmul(&wide)).abs().max();
        assert!(f64::try_from(difference).unwrap() < 1e-4);
    }
}
