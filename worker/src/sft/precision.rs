//! The type that training multiplies in.
//!
//! Master weights, moments and the loss are float32 always. Products are bfloat16 where the checkpoint is stored
//! in it and the device multiplies it natively (a GPU from compute capability 8.0, a CPU with AMX), as
//! mixed-precision training does; everything else is float32. float16 would need the loss to be scaled.

use tch::{Device, Kind};

/// The type for a checkpoint stored as `stored`.
pub fn compute_kind(stored: Kind, device: Device) -> Kind {
    let native = match device {
        Device::Cpu => cpu_multiplies_bfloat16(),
        Device::Cuda(_) => true,
        _ => false,
    };
    if stored == Kind::BFloat16 && native { Kind::BFloat16 } else { Kind::Float }
}

/// Whether the CPU has AMX tiles for bfloat16; AVX-512's instructions alone do not outweigh the conversions.
#[cfg(target_arch = "x86_64")]
fn cpu_multiplies_bfloat16() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    /// AMX-BF16: leaf 7, EDX.
    const AMX_BF16: u32 = 1 << 22;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX_BF16 != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_multiplies_bfloat16() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bfloat16_checkpoints_are_multiplied_in_less_than_float32() {
        for stored in [Kind::Float, Kind::Half] {
            assert_eq!(compute_kind(stored, Device::Cpu), Kind::Float);
            assert_eq!(compute_kind(stored, Device::Cuda(0)), Kind::Float);
        }
        assert_eq!(compute_kind(Kind::BFloat16, Device::Cuda(0)), Kind::BFloat16);
    }
}
