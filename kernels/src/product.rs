//! Products of floating-point matrices in the type that this processor multiplies fastest.

use tch::{Device, Kind, TchError, Tensor};

/// `x` [M, K] times `weight` [K, N], of one type, in that type. Without AVX-512 libtorch multiplies bfloat16 on a CPU with
/// scalar instructions, six times slower than float32 (measured: K = N = 512, 32 rows): there the product is taken in
/// float32 and rounded at its end, which is what the processors with such instructions do.
pub(crate) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
    if x.kind() != Kind::BFloat16 || x.device() != Device::Cpu || has_bfloat16_products() {
        return x.f_mm(weight);
    }
    x.f_to_kind(Kind::Float)?.f_mm(&weight.f_to_kind(Kind::Float)?)?.f_to_kind(Kind::BFloat16)
}

#[cfg(target_arch = "x86_64")]
fn has_bfloat16_products() -> bool {
    std::arch::is_x86_feature_detected!("avx512bw")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_bfloat16_products() -> bool {
    true
}
