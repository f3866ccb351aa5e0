//! Codes of activations as the products want them.

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::{amx, blocks::Blocks, outer, outer_vnni};

/// Codes i8 [M, K], each row filled up with zeros to whole vectors.
#[derive(Debug)]
pub(crate) enum Panel {
    /// In 16 bits, for instructions that multiply these.
    Wide {
        /// i16 [M, stride].
        values: Vec<i16>,
        /// Of a row.
        stride: usize,
    },
    /// Many rows in 16 bits, in blocks, for instructions that multiply these.
    #[cfg(target_arch = "x86_64")]
    Blocks(Blocks<i32>),
    /// Many rows for the unit of tiles.
    #[cfg(target_arch = "x86_64")]
    Tiles(amx::Rows),
    /// In fours, in blocks, for instructions that multiply these.
    #[cfg(target_arch = "x86_64")]
    Fours(outer_vnni::Rows),
}

impl Panel {
    /// Codes in a vector of 16-bit values of AVX2.
    pub(crate) const WIDE: usize = 16;

    /// Whether so many rows meet strips of the weight in units that pay only for many.
    #[cfg(target_arch = "x86_64")]
    fn are_many(rows: usize) -> bool {
        rows >= 12
    }

    /// From codes i8 [M, K].
    pub(crate) fn new(codes: &[i8], in_features: usize, isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        match (isa, Self::are_many(codes.len() / in_features.max(1))) {
            (Isa::Avx2 | Isa::Avx512, true) => return Self::Blocks(outer::blocks(codes, in_features)),
            (Isa::Amx, true) => return Self::Tiles(amx::Rows::new(codes, in_features)),
            (Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx, _) => {
                // SAFETY: `isa` says that the processor has the unit.
                return Self::Fours(unsafe { outer_vnni::Rows::new(codes, in_features) });
            }
            (Isa::Portable | Isa::Avx2 | Isa::Avx512, _) => {}
        }
        let _ = isa;
        let (values, stride) = padded(codes, in_features);
        Self::Wide { values, stride }
    }
}

fn padded(codes: &[i8], in_features: usize) -> (Vec<i16>, usize) {
    let stride = in_features.next_multiple_of(Panel::WIDE);
    let rows = codes.len() / in_features.max(1);
    let mut values = Vec::with_capacity(rows * stride);
    for row in codes.chunks_exact(in_features) {
        values.extend(row.iter().map(|&code| i16::from(code)));
        values.resize(values.len() + stride - in_features, 0);
    }
    (values, stride)
}
