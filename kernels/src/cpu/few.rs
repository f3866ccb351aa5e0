//! Few rows of activations, as codes in few bits meet them: numbers of f32, or pairs of bfloat16 where the processor multiplies these.

#[cfg(target_arch = "x86_64")]
pub(crate) mod pairs;

#[cfg(target_arch = "x86_64")]
use half::bf16;
use tch::Kind;

use super::float::Float;
use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::view::same_all;

/// Rows in f32 that share the unpacking of an output channel.
pub(crate) const ROWS: usize = 4;
/// Rows in bfloat16 that do where pairs of it are multiplied.
pub(crate) const MOST_ROWS: usize = 8;

/// Whether pairs of bfloat16 are multiplied here.
pub(crate) fn has_pairs(isa: Isa) -> bool {
    // AMX comes with them on all processors so far, but is not asked about them.
    #[cfg(target_arch = "x86_64")]
    return isa >= Isa::Avx512Bf16 && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        false
    }
}

/// So many rows of a type share the unpacking of an output channel, where those in bfloat16 may be pairs.
pub(crate) fn rows_at_once(kind: Kind, in_pairs: bool, isa: Isa) -> usize {
    if in_pairs && kind == Kind::BFloat16 && has_pairs(isa) { MOST_ROWS } else { ROWS }
}

/// The activations of a row, in the order in which the module that multiplies them unpacks codes.
#[derive(Debug)]
pub(crate) enum Row {
    /// Numbers of f32.
    Floats(Vec<f32>),
    /// Pairs of bfloat16.
    #[cfg(target_arch = "x86_64")]
    Pairs(Pairs),
}

/// Activations in bfloat16. They are made where pairs are multiplied.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub(crate) struct Pairs(Vec<bf16>);

impl Row {
    /// Of these activations, in their own order; as pairs, and whole vectors, filled up with zeros, where they are in bfloat16, `in_pairs`
    /// says so and these are multiplied here.
    pub(crate) fn in_order<T: Float>(values: &[T], in_pairs: bool, isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        if in_pairs {
            let filled_up = |values: &[bf16]| {
                let mut found = values.to_vec();
                found.resize(values.len().next_multiple_of(pairs::VECTOR), bf16::ZERO);
                found
            };
            if let Some(row) = Self::paired(values, isa, filled_up) {
                return row;
            }
        }
        let _ = (in_pairs, isa);
        Self::Floats(values.iter().map(|value| value.wide()).collect())
    }

    /// Of these activations in the order that `ordered` gives them, if they are in bfloat16 and pairs are multiplied here.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn paired<T: Float>(
        values: &[T],
        isa: Isa,
        ordered: impl FnOnce(&[bf16]) -> Vec<bf16>,
    ) -> Option<Self> {
        let values = same_all(values)?;
        has_pairs(isa).then(|| Self::Pairs(Pairs(ordered(values))))
    }

    /// Input channels, and what it is filled up with.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            #[cfg(target_arch = "x86_64")]
            Self::Pairs(Pairs(values)) => values.len(),
        }
    }

    pub(crate) fn floats(&self) -> &[f32] {
        match self {
            Self::Floats(values) => values,
            #[cfg(target_arch = "x86_64")]
            Self::Pairs(_) => unreachable!("rows of one type are all in pairs, or none is"),
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn pairs(&self) -> &[bf16] {
        match self {
            Self::Pairs(Pairs(values)) => values,
            Self::Floats(_) => unreachable!("rows of one type are all in pairs, or none is"),
        }
    }
}

/// A call with an array of what `$of` says of each row, of which there are as many as one of the patterns has.
#[cfg(target_arch = "x86_64")]
macro_rules! with_rows {
    ($rows:expr, $of:expr, |$array:ident| $call:expr, $($some:tt)+) => {
        match $rows {
            $($some => {
                let $array = $some.map($of);
                $call
            })+
            _ => unreachable!("no more rows than are multiplied at once"),
        }
    };
    (4: $rows:expr, $of:expr, |$array:ident| $call:expr) => {
        $crate::cpu::few::with_rows!($rows, $of, |$array| $call, [a] [a, b] [a, b, c] [a, b, c, d])
    };
    (8: $rows:expr, $of:expr, |$array:ident| $call:expr) => {
        $crate::cpu::few::with_rows!(
            $rows, $of, |$array| $call,
            [a] [a, b] [a, b, c] [a, b, c, d] [a, b, c, d, e] [a, b, c, d, e, f] [a, b, c, d, e, f, g] [a, b, c, d, e, f, g, h]
        )
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use with_rows;
