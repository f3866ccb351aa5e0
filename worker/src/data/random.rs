//! A small generator of random numbers whose stream is ours: the order of rows and an adapter's first
//! weights must not change with a library's version or with the device.

/// SplitMix64 (Steele, Lea and Flood, 2014): one 64-bit state, every seed a good one.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A stream of its own for every (`seed`, `stream`).
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut first = Self { state: seed };
        let mut second = Self { state: first.next_u64() ^ stream };
        second.next_u64();
        second
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, all equally likely (Lemire's multiplication with rejection).
    pub fn below(&mut self, bound: u64) -> u64 {
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// A number in [-`bound`, `bound`), with 24 random bits.
    pub fn symmetric(&mut self, bound: f64) -> f32 {
        let unit = (self.next_u64() >> 40) as f64 / f64::from(1u32 << 24);
        ((2.0 * unit - 1.0) * bound) as f32
    }

    /// The numbers below `length` in random order (Fisher and Yates).
    pub fn permutation(&mut self, length: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..length as u32).collect();
        for last in (1..length).rev() {
            order.swap(last, self.below(last as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_pinned() {
        let mut random = Random::new(0, 0);
        assert_eq!(random.next_u64(), Random::new(0, 0).next_u64());
        assert_eq!(Random::new(7, 1).permutation(8), PINNED);
        assert_ne!(Random::new(7, 2).permutation(8), PINNED);
    }

    /// Changing it changes what every training run gives: bump the version of `sft` then.
    const PINNED: [u32; 8] = [4, 3, 2, 0, 6, 5, 1, 7];

    #[test]
    fn a_permutation_has_every_number_once() {
        let mut order = Random::new(3, 9).permutation(1000);
        assert_ne!(order[..4], [0, 1, 2, 3]);
        order.sort_unstable();
        assert!(order.iter().copied().eq(0..1000));
    }

    #[test]
    fn symmetric_numbers_stay_in_their_bounds_and_use_them() {
        let mut random = Random::new(1, 1);
        let values: Vec<f32> = (0..10_000).map(|_| random.symmetric(0.5)).collect();
        assert!(values.iter().all(|v| (-0.5..0.5).contains(v)));
        let mean = values.iter().sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!(values.iter().copied().fold(f32::MIN, f32::max) > 0.49);
    }
}
