//! The types of activations.

use half::{bf16, f16};

use super::view::Element;

/// A floating-point type that is computed with in f32.
pub(crate) trait Float: Element + Send + Sync {
    /// The distance from 1 to the next larger number.
    const EPSILON: f32;

    /// The same number.
    fn wide(self) -> f32;

    /// The nearest number, halves to the even one.
    fn narrow(value: f32) -> Self;

    /// A number rounded to this type.
    #[inline(always)]
    fn rounded(value: f32) -> f32 {
        Self::narrow(value).wide()
    }

    /// A number that is not NaN, rounded to this type.
    #[inline(always)]
    fn number_rounded(value: f32) -> f32 {
        Self::rounded(value)
    }
}

impl Float for f32 {
    const EPSILON: f32 = f32::EPSILON;

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Float for bf16 {
    const EPSILON: f32 = 1.0 / 128.0;

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    // Without a branch, so that loops become vectors.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16;
        let quiet = (bits >> 16) as u16 | 0x40;
        Self::from_bits(if value.is_nan() { quiet } else { rounded })
    }

    #[inline(always)]
    fn number_rounded(value: f32) -> f32 {
        let bits = value.to_bits();
        f32::from_bits(bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000)
    }
}

impl Float for f16 {
    const EPSILON: f32 = 1.0 / 1024.0;

    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Calls a generic function for the type of a tensor's elements.
macro_rules! for_kind {
    ($kind:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $kind {
            tch::Kind::BFloat16 => $function::<half::bf16>($($argument),*),
            tch::Kind::Half => $function::<half::f16>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}
pub(crate) use for_kind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_is_rounded_as_half_does_it() {
        let mut bits = 0_u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_add(0x9E37_79B1);
            let value = f32::from_bits(bits);
            let (ours, theirs) = (<bf16 as Float>::narrow(value), bf16::from_f32(value));
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{value:e}");
            let wide = theirs.to_f32();
            assert!(value.is_nan() || Float::wide(ours) == wide && bf16::number_rounded(value) == wide);
        }
    }
}
