//! Weights of four bits, two a byte, and activations in the order in which they are unpacked.
//!
//! Sixteen bytes, [`CHUNK`] weights, are unpacked at once: all low halves, then all high ones. So activations are put in that
//! order beforehand, once for all output channels.

/// Weights that are unpacked at once.
pub(crate) const CHUNK: usize = 32;
/// The bytes that hold them.
pub(crate) const BYTES: usize = CHUNK / 2;

/// Which of two neighbouring weights is in the low half of their byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The first: [`mod@crate::packing`].
    LowFirst,
    /// The second: [`mod@crate::nf4`].
    HighFirst,
}

/// Values of input channels, whole chunks of them, in the order of unpacking.
pub(crate) fn interleaved<T: Copy>(values: impl Iterator<Item = T>, order: Order) -> Vec<T> {
    let values: Vec<T> = values.collect();
    let mut found = Vec::with_capacity(values.len());
    let (low, high) = match order {
        Order::LowFirst => (0, 1),
        Order::HighFirst => (1, 0),
    };
    for chunk in values.chunks_exact(CHUNK) {
        found.extend(chunk[low..].iter().step_by(2));
        found.extend(chunk[high..].iter().step_by(2));
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
        let found = interleaved(0..64, Order::LowFirst);
        assert_eq!((found[0], found[1], found[15], found[16], found[31], found[32]), (0, 2, 30, 1, 31, 32));
        let found = interleaved(0..32, Order::HighFirst);
        assert_eq!((found[0], found[16]), (1, 0));
        assert_eq!(pair(0xA3, Order::LowFirst), [3, 10]);
        assert_eq!(pair(0xA3, Order::HighFirst), [10, 3]);
    }
}
