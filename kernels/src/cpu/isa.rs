//! Which instructions kernels may use.

use std::env;
use std::ffi::OsString;
use std::sync::OnceLock;

/// Sets of instructions, each with those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor of this architecture has.
    Portable,
    /// AVX2 and FMA; BMI2 where it is there, as on all of AMD's and Intel's.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with products of int8 (VNNI).
    Avx512Vnni,
    /// The same with products of bfloat16 (BF16) and permutations of bytes (VBMI).
    Avx512Bf16,
    /// Tiles of int8 (AMX), which this process is permitted to use.
    Amx,
}

/// A name in QPIPE_CPU that is none.
#[derive(Debug, thiserror::Error)]
#[error("QPIPE_CPU is `{}`, expected one of {}", found.display(), names().join(", "))]
pub struct UnknownIsa {
    found: OsString,
}

impl Isa {
    /// All of them, by the names that QPIPE_CPU knows.
    const NAMED: [(&'static str, Self); 6] = [
        ("portable", Self::Portable),
        ("avx2", Self::Avx2),
        ("avx512", Self::Avx512),
        ("avx512-vnni", Self::Avx512Vnni),
        ("avx512-bf16", Self::Avx512Bf16),
        ("amx", Self::Amx),
    ];

    /// What kernels use: all that this processor has, or less where QPIPE_CPU says so. It is read once; a name that is
    /// none limits nothing here (see [`Isa::most_allowed`]).
    pub fn here() -> Self {
        static HERE: OnceLock<Isa> = OnceLock::new();
        *HERE.get_or_init(|| Self::of_this_machine(Self::most_allowed().unwrap_or(Self::Amx)))
    }

    /// All that this processor has, whatever QPIPE_CPU says. Linux is asked for tiles where it has them.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn of_hardware() -> Self {
        static HARDWARE: OnceLock<Isa> = OnceLock::new();
        *HARDWARE.get_or_init(|| Self::of_this_machine(Self::Amx))
    }

    /// What QPIPE_CPU allows.
    ///
    /// # Errors
    ///
    /// A name that is none.
    pub fn most_allowed() -> Result<Self, UnknownIsa> {
        let Some(found) = env::var_os("QPIPE_CPU") else { return Ok(Self::Amx) };
        match Self::NAMED.iter().find(|(name, _)| found == *name) {
            Some((_, isa)) => Ok(*isa),
            None => Err(UnknownIsa { found }),
        }
    }

    /// Its name, as QPIPE_CPU has it.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, isa)| *isa == self).map_or("", |(name, _)| name)
    }

    /// Those that this processor has, the least first; in tests AMX, too, where its strips can be filled: it is emulated.
    pub fn all_of_this_machine() -> impl Iterator<Item = Self> {
        let most = Self::of_this_machine(Self::Amx);
        let here = Self::NAMED.into_iter().map(|(_, isa)| isa).filter(move |isa| *isa <= most);
        #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
        let here = here.chain((most >= Self::Avx512Vnni && most != Self::Amx).then(|| {
            super::amx::emulated::install();
            Self::Amx
        }));
        here
    }

    /// All that this processor has, up to `most`.
    #[cfg(target_arch = "x86_64")]
    fn of_this_machine(most: Self) -> Self {
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            return Self::Portable;
        }
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        let here = match (has_avx512, is_x86_feature_detected!("avx512vnni")) {
            // Linux is asked for tiles only where they may be used.
            (true, true) if most == Self::Amx && super::amx::is_here() => Self::Amx,
            (true, true)
                if is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vbmi") =>
            {
                Self::Avx512Bf16
            }
            (true, true) => Self::Avx512Vnni,
            (true, false) => Self::Avx512,
            (false, _) => Self::Avx2,
        };
        here.min(most)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of_this_machine(_: Self) -> Self {
        Self::Portable
    }
}

fn names() -> Vec<&'static str> {
    Isa::NAMED.iter().map(|(name, _)| *name).collect()
}

/// A function with loops over values, compiled for AVX2 and for AVX-512, too: the compiler makes vectors of them. Products and sums stay
/// apart, as Rust promises, so that all give the same bits.
macro_rules! vectorized {
    ($name:ident, $plain:ident, ($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)?) => {
        fn $name<T: Float>($($argument: $kind,)* isa: Isa) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            if isa >= Isa::Avx512 {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn with_avx512<T: Float>($($argument: $kind),*) $(-> $result)? {
                    $plain($($argument),*)
                }
                // SAFETY: `isa` says that the processor has the instructions.
                return unsafe { with_avx512($($argument),*) };
            }
            #[cfg(target_arch = "x86_64")]
            if isa >= Isa::Avx2 {
                #[target_feature(enable = "avx2,fma")]
                fn with_avx2<T: Float>($($argument: $kind),*) $(-> $result)? {
                    $plain($($argument),*)
                }
                // SAFETY: likewise.
                return unsafe { with_avx2($($argument),*) };
            }
            let _ = isa;
            $plain($($argument),*)
        }
    };
}
pub(crate) use vectorized;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_holds_the_ones_before_it() {
        assert!(Isa::NAMED.is_sorted_by_key(|(_, isa)| *isa));
        assert_eq!(Isa::all_of_this_machine().next(), Some(Isa::Portable));
        assert_eq!(Isa::Avx2.name(), "avx2");
    }
}
