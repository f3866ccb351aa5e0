//! Weights of four bits, two a byte, and activations in the order in which they are unpacked.
//!
//! Bytes are unpacked a vector at a time, sixteen, [`CHUNK`] weights, at least: low halves in the lower half of a vector, high ones in the upper, or in one
//! of their own. So activations are put in that order beforehand, once for all output channels.

/// Weights that are unpacked at once.
pub(crate) const CHUNK: usize = 32;
/// The bytes that hold them.
pub(crate) const BYTES: usize = CHUNK / 2;

/// Values of 32 bits in half a vector: so many low halves, then as many high ones, where weights become f32.
pub(crate) const RUN: usize = 4;

/// Which of two neighbouring weights is in the low half of their byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The first: [`mod@crate::packing`].
    LowFirst,
    /// The second: [`mod@crate::nf4`].
    HighFirst,
}

/// Values of input channels in the order of unpacking: `run` low halves, then as many high ones. There are whole runs of both.
pub(crate) fn interleaved<T: Copy>(values: &[T], order: Order, run: usize) -> Vec<T> {
    let mut found = Vec::with_capacity(values.len());
    let (low, high) = match order {
        Order::LowFirst => (0, 1),
        Order::HighFirst => (1, 0),
    };
    debug_assert!(values.len().is_multiple_of(2 * run));
    for some in values.chunks_exact(2 * run) {
        found.extend(some[low..].iter().step_by(2));
        found.extend(some[high..].iter().step_by(2));
    }
    found
}

/// Weights in a vector of AVX-512: eight in each of sixteen words.
pub(crate) const WORDS: usize = 128;

/// Values of input channels in the order in which the words of a vector are unpacked: of each word the first weight, of each
/// the second, and so on to the eighth. The last vector is filled up with zeros.
pub(crate) fn by_word(values: &[f32], order: Order) -> Vec<f32> {
    let mut found = Vec::with_capacity(values.len().next_multiple_of(WORDS));
    for words in values.chunks(WORDS) {
        for nibble in 0..8 {
            let place = match order {
                Order::LowFirst => nibble,
                Order::HighFirst => nibble ^ 1,
            };
            found.extend((0..16).map(|word| words.get(8 * word + place).copied().unwrap_or_default()));
        }
    }
    found
}

/// The same in pairs of 16 bits: of each word the first weight and the fifth, then of each the second and the sixth, and so on.
#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) fn by_half_word<T: Copy + Default>(values: &[T], order: Order) -> Vec<T> {
    let mut found = vec![T::default(); values.len().next_multiple_of(WORDS)];
    for (found, values) in found.chunks_exact_mut(WORDS).zip(values.chunks(WORDS)) {
        let mut words = [T::default(); WORDS];
        words[..values.len()].copy_from_slice(values);
        for (nibble, found) in found.chunks_exact_mut(WORDS / 4).enumerate() {
            let place = match order {
                Order::LowFirst => nibble,
                Order::HighFirst => nibble ^ 1,
            };
            for (found, half) in found.iter_mut().zip(words.as_chunks::<4>().0) {
                *found = half[place];
            }
        }
    }
    found
}

/// Both weights of a byte, in their order.
#[inline(always)]
pub(crate) fn pair(byte: u8, order: Order) -> [u8; 2] {
    match order {
        Order::LowFirst => [byte & 15, byte >> 4],
        Order::HighFirst => [byte >> 4, byte & 15],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_halves_come_first() {
        let values: Vec<i32> = (0..64).collect();
        let found = interleaved(&values, Order::LowFirst, BYTES);
        assert_eq!((found[0], found[1], found[15], found[16], found[31], found[32]), (0, 2, 30, 1, 31, 32));
        let found = interleaved(&values, Order::HighFirst, BYTES);
        assert_eq!((found[0], found[16]), (1, 0));
        let found = interleaved(&values, Order::LowFirst, RUN);
        assert_eq!(found[..9], [0, 2, 4, 6, 1, 3, 5, 7, 8]);
        let found = by_word(&(0..136_u16).map(f32::from).collect::<Vec<_>>(), Order::HighFirst);
        assert_eq!((found[0], found[1], found[16], found[127]), (1.0, 9.0, 0.0, 126.0));
        assert_eq!((found[128], found[129], found.len()), (129.0, 0.0, 256));
        let found = by_half_word(&(0..136).collect::<Vec<_>>(), Order::LowFirst);
        assert_eq!((&found[..4], &found[32..34], found[127]), (&[0, 4, 8, 12][..], &[1, 5][..], 127));
        assert_eq!((&found[128..131], found[160], found.len()), (&[128, 132, 0][..], 129, 256));
        assert_eq!(by_half_word(&(0..128).collect::<Vec<_>>(), Order::HighFirst)[31..33], [125, 0]);
        assert_eq!(pair(0xA3, Order::LowFirst), [3, 10]);
        assert_eq!(pair(0xA3, Order::HighFirst), [10, 3]);
    }
}
