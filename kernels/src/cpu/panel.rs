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
    /// Many rows in fours, in blocks, for instructions that multiply these.
    #[cfg(target_arch = "x86_64")]
    Fours(outer_vnni::Rows),
    /// 128 above themselves, for instructions that take a factor without a sign.
    Shifted {
        /// u8 [M, stride].
        values: Vec<u8>,
        /// Of a row.
        stride: usize,
    },
}

impl Panel {
    /// Codes in a vector of 16-bit values of AVX2.
    pub(crate) const WIDE: usize = 16;
    /// Codes in a vector of bytes of AVX-512.
    pub(crate) const SHIFTED: usize = 64;
    /// What is added to shifted codes.
    pub(crate) const SHIFT: u8 = 128;

    /// Whether so many rows meet strips of the weight, where the processor has a unit for that.
    pub(crate) fn are_many(rows: usize, isa: Isa) -> bool {
        // For fewer it does not pay to bring the weight into strips.
        rows >= if let Isa::Avx512Vnni | Isa::Avx512Bf16 = isa { 5 } else { 12 }
    }

    /// Whether products with it need the sums of the weight's codes.
    pub(crate) fn needs_sums(&self) -> bool {
        matches!(self, Self::Shifted { .. })
    }

    /// From codes i8 [M, K].
    pub(crate) fn new(codes: &[i8], in_features: usize, isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        if Self::are_many(codes.len() / in_features.max(1), isa) {
            match isa {
                Isa::Avx2 | Isa::Avx512 => return Self::Blocks(outer::blocks(codes, in_features)),
                Isa::Amx => return Self::Tiles(amx::Rows::new(codes, in_features)),
                Isa::Avx512Vnni | Isa::Avx512Bf16 => {
                    return Self::Fours(outer_vnni::Rows::new(codes, in_features));
                }
                Isa::Portable => {}
            }
        }
        if isa >= Isa::Avx512Vnni {
            let (values, stride) = padded(codes, in_features, Self::SHIFTED, |code| code as u8 ^ Self::SHIFT);
            Self::Shifted { values, stride }
        } else {
            let (values, stride) = padded(codes, in_features, Self::WIDE, i16::from);
            Self::Wide { values, stride }
        }
    }
}

fn padded<T: Copy + Default>(
    codes: &[i8],
    in_features: usize,
    vector: usize,
    convert: impl Fn(i8) -> T,
) -> (Vec<T>, usize) {
    let stride = in_features.next_multiple_of(vector);
    let rows = codes.len() / in_features.max(1);
    let mut values = Vec::with_capacity(rows * stride);
    for row in codes.chunks_exact(in_features) {
        values.extend(row.iter().map(|&code| convert(code)));
        values.resize(values.len() + stride - in_features, T::default());
    }
    (values, stride)
}
