//! Python's `random.Random`, for the examples that lm-eval draws: the same seed gives the same examples.
//!
//! The generator is MT19937 (Matsumoto and Nishimura, 1998), seeded by its authors' `init_by_array`, as CPython's
//! documentation of the module `random` says; `sample` follows the steps of CPython 3.11's.

use std::collections::HashSet;

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// A generator of Python's.
#[derive(Clone)]
pub(in crate::eval) struct PythonRandom {
    state: [u32; SIZE],
    next: usize,
}

impl PythonRandom {
    /// `random.Random(seed)`.
    pub(in crate::eval) fn new(seed: u64) -> Self {
        let words = [seed as u32, (seed >> 32) as u32];
        let used = if words[1] == 0 { 1 } else { 2 };
        Self::by_array(&words[..used])
    }

    fn by_array(key: &[u32]) -> Self {
        let mut state = [0_u32; SIZE];
        state[0] = 19_650_218;
        for index in 1..SIZE {
            let before = state[index - 1];
            state[index] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(index as u32);
        }
        let mixed = |state: &[u32; SIZE], index: usize, factor: u32| {
            let before = state[index - 1];
            state[index] ^ (before ^ (before >> 30)).wrapping_mul(factor)
        };
        let wrap = |state: &mut [u32; SIZE], index: &mut usize| {
            *index += 1;
            if *index >= SIZE {
                state[0] = state[SIZE - 1];
                *index = 1;
            }
        };
        let (mut index, mut word) = (1, 0);
        for _ in 0..SIZE.max(key.len()) {
            state[index] = mixed(&state, index, 1_664_525).wrapping_add(key[word]).wrapping_add(word as u32);
            wrap(&mut state, &mut index);
            word = (word + 1) % key.len();
        }
        for _ in 1..SIZE {
            state[index] = mixed(&state, index, 1_566_083_941).wrapping_sub(index as u32);
            wrap(&mut state, &mut index);
        }
        state[0] = 1 << 31;
        Self { state, next: SIZE }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == SIZE {
            for index in 0..SIZE {
                let joined = (self.state[index] & (1 << 31)) | (self.state[(index + 1) % SIZE] & !(1 << 31));
                let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[index] = self.state[(index + MIDDLE) % SIZE] ^ (joined >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A number below `end`, which is at least 1 and below 2³².
    fn below(&mut self, end: usize) -> usize {
        let bits = usize::BITS - end.leading_zeros();
        loop {
            let number = (self.next_u32() >> (32 - bits)) as usize;
            if number < end {
                return number;
            }
        }
    }

    /// `random()`: from 0 to below 1, in steps of 2⁻⁵³.
    pub(in crate::eval) fn random(&mut self) -> f64 {
        let (high, low) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(high) * f64::from(1 << 26) + f64::from(low)) / (1_u64 << 53) as f64
    }

    /// `sample(range(population), count)`: distinct numbers in the order in which they are drawn. `None`: there are fewer.
    pub(in crate::eval) fn sample(&mut self, population: usize, count: usize) -> Option<Vec<usize>> {
        if count > population {
            return None;
        }
        let mut most_for_a_list = 21;
        if count > 5 {
            most_for_a_list += 4_usize.pow(((count * 3) as f64).log(4.0).ceil() as u32);
        }
        if population <= most_for_a_list {
            let mut pool: Vec<usize> = (0..population).collect();
            let draw = |drawn: usize| {
                let last = population - drawn - 1;
                let index = self.below(last + 1);
                let number = pool[index];
                pool[index] = pool[last];
                number
            };
            return Some((0..count).map(draw).collect());
        }
        let mut seen = HashSet::new();
        let draw = |_| {
            loop {
                let number = self.below(population);
                if seen.insert(number) {
                    return number;
                }
            }
        };
        Some((0..count).map(draw).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with CPython 3.11: `r = random.Random(SEED); [r.sample(range(N), K) for N, K in …]`.
    #[test]
    fn samples_are_those_of_python() {
        let mut random = PythonRandom::new(1234);
        for (population, expected) in PINNED {
            assert_eq!(random.sample(population, expected.len()).as_deref(), Some(expected), "{population}");
        }
        assert_eq!(random.sample(3, 4), None);
        assert_eq!(PythonRandom::new(1 << 40).sample(1000, 2).as_deref(), Some(&PINNED_LARGE[..]));
    }

    /// Made with CPython 3.11: `r = random.Random(1234); [r.random() for _ in range(3)]`.
    #[test]
    fn numbers_are_those_of_python() {
        let mut random = PythonRandom::new(1234);
        let drawn: Vec<f64> = (0..3).map(|_| random.random()).collect();
        assert_eq!(drawn, NUMBERS);
    }

    const PINNED: [(usize, &[usize]); 5] = [
        (2251, &[1805, 478]),
        (5, &[0, 4, 2, 3, 1]),
        (21, &[3, 11, 7]),
        (100, &[2, 3, 44, 82, 79, 61, 78, 59, 19, 11, 23, 91]),
        (30, &[3, 27, 0, 16, 15, 7]),
    ];
    const PINNED_LARGE: [usize; 2] = [106, 361];
    const NUMBERS: [f64; 3] = [0.9664535356921388, 0.4407325991753527, 0.007491470058587191];
}
