//! What is measured of one input of linear layers, token after token.

use qpipe_nodes::kinds::Extent;
use tch::{Device, Kind, TchError, Tensor};

use super::moments::Moments;
use crate::finite::is_finite;

/// The running measurement of an input with K channels.
#[derive(Debug)]
pub struct Accumulator {
    /// Tokens seen.
    pub tokens: u64,
    /// f32 `[K]`.
    pub minimum: Tensor,
    /// f32 `[K]`.
    pub maximum: Tensor,
    /// f64 `[K]`: the sum of |x|. A sum over millions of tokens needs the digits.
    pub magnitude: Tensor,
    /// XᵀX, where it is asked for.
    pub moments: Option<Moments>,
}

impl Accumulator {
    /// Of no token yet.
    pub fn new(channels: i64, extent: Extent, device: Device) -> Result<Self, TchError> {
        let filled = |value: f64| Tensor::f_full([channels], value, (Kind::Float, device));
        let moments = match extent {
            Extent::Moments => Some(Moments::new(channels, device)?),
            Extent::Samples | Extent::Ranges => None,
        };
        Ok(Self {
            tokens: 0,
            minimum: filled(f64::INFINITY)?,
            maximum: filled(f64::NEG_INFINITY)?,
            magnitude: Tensor::f_zeros([channels], (Kind::Double, device))?,
            moments,
        })
    }

    /// K.
    pub fn channels(&self) -> i64 {
        self.minimum.size()[0]
    }

    /// Bytes of a measurement of `channels` channels.
    pub fn bytes(channels: i64, extent: Extent) -> u64 {
        let ranges = (4 + 4 + 8) * channels as u64;
        ranges + if extent == Extent::Moments { Moments::bytes(channels) } else { 0 }
    }

    /// Adds the tokens `x` [T, K], of the model's type. False, and nothing is added, if a value is not finite.
    pub fn add(&mut self, x: &Tensor) -> Result<bool, TchError> {
        let minimum = x.f_amin([0i64].as_slice(), false)?.f_to_kind(Kind::Float)?;
        let maximum = x.f_amax([0i64].as_slice(), false)?.f_to_kind(Kind::Float)?;
        // A NaN comes through both, an infinity through one of them.
        if !is_finite(&(&maximum - &minimum))? {
            return Ok(false);
        }
        // In place: small tensors that live long, made between large ones that do not, would hold on to their memory.
        self.minimum.f_copy_(&self.minimum.f_minimum(&minimum)?)?;
        self.maximum.f_copy_(&self.maximum.f_maximum(&maximum)?)?;
        let magnitude = x.f_abs()?.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?;
        let _ = self.magnitude.f_add_(&magnitude)?;
        if let Some(moments) = &mut self.moments {
            moments.add(x)?;
        }
        self.tokens += x.size()[0] as u64;
        Ok(true)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn extremes_and_magnitudes_are_those_of_all_tokens() {
        let mut all = Accumulator::new(2, Extent::Ranges, Device::Cpu).unwrap();
        assert!(all.add(&Tensor::from_slice2(&[[1.0f32, 0.0], [-3.0, 0.0]])).unwrap());
        assert!(all.add(&Tensor::from_slice2(&[[2.0f32, 0.0]])).unwrap());
        assert_eq!(all.tokens, 3);
        assert_eq!(Vec::<f32>::try_from(&all.minimum).unwrap(), [-3.0, 0.0]);
        assert_eq!(Vec::<f32>::try_from(&all.maximum).unwrap(), [2.0, 0.0]);
        assert_eq!(Vec::<f64>::try_from(&all.magnitude).unwrap(), [6.0, 0.0]);
    }

    #[test]
    fn what_is_not_finite_is_not_added() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut all = Accumulator::new(2, Extent::Moments, Device::Cpu).unwrap();
            assert!(!all.add(&Tensor::from_slice2(&[[1.0, 2.0], [value, 0.0]])).unwrap());
            assert_eq!(all.tokens, 0);
        }
    }
}
