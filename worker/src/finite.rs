//! NaNs and infinities in tensors.

use tch::{Kind, TchError, Tensor};

/// Whether every value of `tensor` is a finite number.
///
/// # Errors
///
/// Only libtorch's.
pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool, TchError> {
    bool::try_from(tensor.f_isfinite()?.f_all()?)
}

/// How many values of `tensor` are none.
///
/// # Errors
///
/// Only libtorch's.
pub(crate) fn count_not_finite(tensor: &Tensor) -> Result<i64, TchError> {
    let finite = tensor.f_isfinite()?;
    // Mostly all are, which is told sooner than counted.
    if bool::try_from(finite.f_all()?)? {
        return Ok(0);
    }
    i64::try_from(finite.f_logical_not()?.f_sum(Kind::Int64)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn nans_and_infinities_are_counted() {
        for (values, count) in [
            ([1.0, f32::MAX, -0.0], 0),
            ([f32::NAN, 1.0, 2.0], 1),
            ([f32::INFINITY, f32::NEG_INFINITY, f32::NAN], 3),
        ] {
            let tensor = Tensor::from_slice(&values);
            assert_eq!(count_not_finite(&tensor).unwrap(), count, "{values:?}");
            assert_eq!(is_finite(&tensor).unwrap(), count == 0, "{values:?}");
        }
    }
}
