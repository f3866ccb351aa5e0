//! Products of floating-point matrices in the type that this processor multiplies fastest.
//!
//! Without AVX-512 libtorch multiplies bfloat16 on a CPU with scalar instructions, four to six times slower than float32
//! (measured on two cores with AVX2, K = 1024, N = 3072, 512 rows: 336 ms against 64). There the product is taken in
//! float32 and rounded at its end, which is what the processors with such instructions do.

use tch::{Device, Kind, TchError, Tensor};

#[cfg(target_arch = "x86_64")]
use crate::cpu::{self, Isa};
#[cfg(target_arch = "x86_64")]
use crate::environment::wants_reference;
use crate::input::Input;

/// From this many rows on a matrix is converted first; for fewer the conversion costs more than the scalar product.
const WORTH_CONVERTING: i64 = 16;
/// Weights that are converted at once: 16 MiB in float32.
const CONVERTED_AT_ONCE: i64 = 1 << 22;

/// `x` [M, K] times `weight` [K, N], of one type, in that type.
pub(crate) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
    if !is_slow(x) {
        return x.f_mm(weight);
    }
    x.f_to_kind(Kind::Float)?.f_mm(&weight.f_to_kind(Kind::Float)?)?.f_to_kind(Kind::BFloat16)
}

/// Who multiplies in floating point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiplier {
    /// Whoever is fastest here: see [`linear`] and [`crate::attention::can_attend`].
    Fastest,
    /// libtorch.
    Libtorch,
}

/// y = x Wᵀ + b of a floating-point layer: `input` [..., K], `weight` [N, K] and `bias` `[N]` of one type, the result [..., N]
/// in that type. What requires gradients is multiplied as it is. The fastest multiplier is ours on a CPU with AVX-512 BF16 and no AMX, for two rows of
/// float32 or more without gradients, unless `QPIPE_KERNELS=reference`; else libtorch.
///
/// # Errors
///
/// Only libtorch's.
///
/// # Panics
///
/// If `input` has another width than `weight`.
pub fn linear(
    input: &Input<'_>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    multiplier: Multiplier,
) -> Result<Tensor, TchError> {
    let (out_features, in_features) = weight.size2()?;
    let shape = input.output_size((out_features, in_features));
    let rows: i64 = shape[..shape.len() - 1].iter().product();
    let x = input.tensor();
    let is_plain =
        !x.requires_grad() && [Some(weight), bias].into_iter().flatten().all(|part| !part.requires_grad());
    #[cfg(target_arch = "x86_64")]
    if multiplier == Multiplier::Fastest
        && is_plain
        // A single row has no other to share a strip with.
        && rows > 1
        && is_float(x)
        && bias.is_none_or(|bias| is_float(bias) && bias.size() == weight.size()[..1])
        && is_ours(weight)
    {
        // SAFETY: `is_ours` has found the unit.
        return unsafe { cpu::dense::linear(input, weight, bias) };
    }
    // Of the last places of a text, [1, 1, K], libtorch would make a batch of matrices and copy the weight for it: a second for a
    // vocabulary of 151,936 in bfloat16 in place of 20 ms.
    let x = x.f_reshape([rows, in_features])?;
    if !is_slow(&x) || rows < WORTH_CONVERTING || !is_plain {
        return x.f_linear(weight, bias)?.f_view(shape.as_slice());
    }
    let x = x.f_to_kind(Kind::Float)?;
    let y = Tensor::f_empty([rows, out_features], (Kind::BFloat16, Device::Cpu))?;
    let at_once = (CONVERTED_AT_ONCE / in_features).max(1);
    for start in (0..out_features).step_by(at_once as usize) {
        let count = at_once.min(out_features - start);
        let weight = weight.f_narrow(0, start, count)?.f_to_kind(Kind::Float)?;
        let bias = bias.map(|bias| bias.f_narrow(0, start, count)?.f_to_kind(Kind::Float)).transpose()?;
        y.f_narrow(1, start, count)?.f_copy_(&x.f_linear(&weight, bias.as_ref())?)?;
    }
    y.f_view(shape.as_slice())
}

/// A weight in float32 in the order in which our own product reads it, where that is the fastest: it is brought into it once, and not by
/// each product, and takes the place of the matrix that it was.
#[derive(Debug)]
pub struct Ordered {
    #[cfg(target_arch = "x86_64")]
    strips: cpu::dense::InStrips,
    /// There is none.
    #[cfg(not(target_arch = "x86_64"))]
    strips: std::convert::Infallible,
}

impl Ordered {
    /// Of `weight` [N, K]; `None` where it is libtorch's to multiply.
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    pub fn of(weight: &Tensor) -> Result<Option<Self>, TchError> {
        #[cfg(target_arch = "x86_64")]
        if !weight.requires_grad() && is_ours(weight) {
            // SAFETY: `is_ours` has found the unit.
            return Ok(Some(Self { strips: unsafe { cpu::dense::InStrips::new(weight)? } }));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = weight;
        Ok(None)
    }

    /// y = x Wᵀ + b: `input` [..., K] and `bias` `[N]` in float32 on a CPU, the result [..., N]. A row's result has the same bits whatever rows
    /// are beside it. Nothing has gradients.
    ///
    /// # Errors
    ///
    /// Only libtorch's.
    ///
    /// # Panics
    ///
    /// If `input` or `bias` has another type or size.
    pub fn linear(&self, input: &Input<'_>, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
        #[cfg(target_arch = "x86_64")]
        {
            assert!(is_float(input.tensor()) && bias.is_none_or(is_float), "float32 on a CPU");
            // SAFETY: where this could be made there is the unit.
            unsafe { self.strips.linear(input, bias) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (input, bias);
            match self.strips {}
        }
    }

    /// N and K.
    pub fn size(&self) -> (i64, i64) {
        #[cfg(target_arch = "x86_64")]
        return self.strips.size();
        #[cfg(not(target_arch = "x86_64"))]
        match self.strips {}
    }

    /// Bytes of what it holds.
    pub fn bytes(&self) -> u64 {
        #[cfg(target_arch = "x86_64")]
        return self.strips.bytes();
        #[cfg(not(target_arch = "x86_64"))]
        match self.strips {}
    }
}

/// Whether our own product serves `weight`, and is faster than libtorch's.
#[cfg(target_arch = "x86_64")]
fn is_ours(weight: &Tensor) -> bool {
    let fits = weight.size()[1] > 0 && weight.is_contiguous() && is_float(weight);
    fits && cpu::dense::is_best(Isa::here()) && !wants_reference()
}

#[cfg(target_arch = "x86_64")]
fn is_float(tensor: &Tensor) -> bool {
    tensor.kind() == Kind::Float && tensor.device() == Device::Cpu
}

fn is_slow(x: &Tensor) -> bool {
    x.kind() == Kind::BFloat16 && x.device() == Device::Cpu && !has_bfloat16_products()
}

/// Whether libtorch multiplies bfloat16 by more than scalar instructions here.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_bfloat16_products() -> bool {
    std::arch::is_x86_feature_detected!("avx512bw")
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn has_bfloat16_products() -> bool {
    true
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::norm::Norm;

    #[test]
    fn a_layer_is_that_of_libtorch_in_float32_rounded_once() {
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        // More than is converted at once, and a last piece that is shorter.
        let (in_features, out_features) = (700, CONVERTED_AT_ONCE / 700 + 5);
        let (weight, bias) = (random(&[out_features, in_features]), random(&[out_features]));
        let wide = |tensor: &Tensor| tensor.to_kind(Kind::Double);
        for shape in [[1, 3, in_features], [2, 20, in_features], [1, 1, in_features]] {
            // Places of longer texts.
            let x = random(&[shape[0], shape[1] + 4, in_features]).narrow(1, 4, shape[1]);
            for bias in [None, Some(&bias)] {
                let y = linear(&Input::new(&x), &weight, bias, Multiplier::Fastest).unwrap();
                assert_eq!((y.size(), y.kind()), (vec![shape[0], shape[1], out_features], Kind::BFloat16));
                let exact = wide(&x).linear(&wide(&weight), bias.map(wide).as_ref());
                let error = (wide(&y) - &exact).abs() - exact.abs() * 2_f64.powi(-8);
                assert!(error.max().double_value(&[]) < 1e-2);
            }
        }
    }

    /// Layers that share what they are given, with and without a norm before them, in shapes that end within vectors, blocks and strips.
    #[test]
    fn our_own_product_is_libtorch_s_but_for_rounding() {
        tch::manual_seed(5);
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        for (out_features, in_features) in [(1, 1), (33, 7), (64, 512), (100, 1041), (520, 48)] {
            let (weight, bias) = (random(&[out_features, in_features]), random(&[out_features]));
            // Its rows do not lie side by side.
            let turned = random(&[in_features, out_features]).tr();
            let scale = random(&[in_features]);
            for rows in [0, 1, 2, 13, 60] {
                // The last places of longer texts.
                let x = random(&[2, rows + 3, in_features]).narrow(1, 3, rows);
                for (batch, norm) in [(2, false), (1, false), (2, true)] {
                    let x = x.narrow(0, 0, batch);
                    let norm = norm.then_some(Norm { weight: &scale, epsilon: 1e-6 });
                    let input = match norm {
                        Some(norm) => Input::normalized(&x, norm),
                        None => Input::new(&x),
                    };
                    for (weight, bias) in [(&weight, None), (&weight, Some(&bias)), (&turned, None)] {
                        let y = linear(&input, weight, bias, Multiplier::Fastest).unwrap();
                        let ordered = Ordered::of(weight).unwrap().map(|ordered| {
                            assert_eq!(ordered.size(), (out_features, in_features));
                            ordered.linear(&input, bias).unwrap()
                        });
                        if let Some(ordered) = ordered.as_ref().filter(|_| batch * rows > 1) {
                            assert!(ordered.equal(&y));
                        }
                        let wide = |tensor: &Tensor| tensor.to_kind(Kind::Double);
                        let (x, magnitudes) = (wide(input.tensor()), wide(&input.tensor().abs()));
                        let exact = x.linear(&wide(weight), bias.map(wide).as_ref());
                        assert_eq!(y.size(), exact.size());
                        // Of the sum of all magnitudes, as sums in float32 are.
                        let most = magnitudes
                            .linear(&wide(&weight.abs()), bias.map(|bias| wide(&bias.abs())).as_ref());
                        for y in ordered.iter().chain([&y]) {
                            let error = (wide(y) - &exact).abs() - &most * 1e-6;
                            assert!(
                                !error.gt(0.0).any().double_value(&[]).eq(&1.0),
                                "{rows} x {out_features} x {in_features}"
                            );
                        }
                    }
                }
            }
        }
    }
}
